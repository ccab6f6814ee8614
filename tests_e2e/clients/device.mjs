// A device of Herald, written with the library `ws` from the contract alone.
//
// usage: node device.mjs <how> <ws url> <token or ticket> <count>
// Takes `count` notifications, vanishes after the first half, returns with its position, prints what it saw as JSON.
import WebSocket from "ws";

const [how, url, secret, wanted] = process.argv.slice(2);
const count = Number(wanted);
const seen = { ids: [], seqs: [], redelivered: 0, resumes: [], pong: false, protocol: "" };
let position = null;

function open() {
  const query = new URLSearchParams({ device_id: "node" });
  if (position !== null) query.set("position", position);
  if (how === "header") return new WebSocket(`${url}?${query}`, { headers: { Authorization: `Bearer ${secret}` } });
  if (how === "subprotocol") return new WebSocket(`${url}?${query}`, ["herald.v1", `bearer.${secret}`]);
  if (how === "ticket") return new WebSocket(`${url}?${new URLSearchParams({ ...Object.fromEntries(query), ticket: secret })}`);
  const socket = new WebSocket(url);
  socket.on("open", () => {
    const hello = { type: "hello", token: secret, device_id: "node", client: { name: "node-ws", version: "8" } };
    socket.send(JSON.stringify(position === null ? hello : { ...hello, position }));
  });
  return socket;
}

function listen(until) {
  return new Promise((resolve, reject) => {
    const socket = open();
    socket.on("error", reject);
    socket.on("close", (code) => (seen.ids.length >= until ? resolve(code) : reject(new Error(`closed with ${code}`))));
    let isOver = false;
    socket.on("message", (data) => {
      if (isOver) return; // what comes after the half is not seen, and must come again
      const frame = JSON.parse(data.toString());
      if (frame.position) position = frame.position;
      if (frame.type === "welcome") {
        seen.resumes.push(frame.resume);
        seen.protocol = socket.protocol;
        socket.send(JSON.stringify({ type: "ping", ref: "p" }));
        console.error("ready");
      }
      if (frame.type === "pong" && frame.ref === "p") seen.pong = true;
      if (frame.type !== "notification") return;
      seen.ids.push(frame.id);
      seen.seqs.push(frame.seq);
      seen.redelivered += frame.redelivered ? 1 : 0;
      socket.send(JSON.stringify({ type: "ack", position: frame.position }));
      if (seen.ids.length < until) return;
      isOver = true;
      setTimeout(() => (until < count ? socket.terminate() : socket.close(1000)), 100);
    });
  });
}

if (how !== "ticket") await listen(count / 2);
await listen(count);
console.log(JSON.stringify(seen));
