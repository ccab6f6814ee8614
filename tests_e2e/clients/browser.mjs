// A web page in Chromium that uses Herald by the ways a browser has.
//
// usage: node browser.mjs <chromium> <origin> <http url of the gateway> <token> <ticket> <ticket>
// Prints, for each way, the first frames as JSON; answers once every way has a notification.
import { chromium } from "playwright-core";

const [executablePath, origin, url, token, socketTicket, eventTicket] = process.argv.slice(2);
// The page is made up, so Chromium does not know that it comes from this machine, and would not let it speak to it.
const localNetwork = "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", localNetwork] });
try {
  const page = await browser.newPage();
  await page.route(`${origin}/**`, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><title>t</title>" }));
  await page.goto(`${origin}/`);
  await page.exposeFunction("ready", () => console.error("ready"));
  const seen = await page.evaluate(
    async ({ url, token, socketTicket, eventTicket }) => {
      const sockets = url.replace("http", "ws") + "/ws";
      const opened = {
        subprotocol: () => new WebSocket(`${sockets}?device_id=w1`, ["herald.v1", `bearer.${token}`]),
        ticket: () => new WebSocket(`${sockets}?device_id=w2&ticket=${socketTicket}`),
        hello: () => {
          const socket = new WebSocket(sockets);
          socket.onopen = () => socket.send(JSON.stringify({ type: "hello", token, device_id: "w3" }));
          return socket;
        },
        events: () => new EventSource(`${url}/sse?device_id=w4&ack=auto&ticket=${eventTicket}`),
      };
      let synced = 0;
      const all = Object.entries(opened).map(
        ([way, open]) =>
          new Promise((resolve, reject) => {
            const source = open();
            const frames = [];
            source.onerror = () => reject(new Error(`${way} failed after ${JSON.stringify(frames)}`));
            source.onmessage = ({ data, lastEventId }) => {
              const frame = JSON.parse(data);
              frames.push({ ...frame, lastEventId });
              if (frame.type === "synced" && ++synced === 4) window.ready();
              if (frame.type !== "notification") return;
              if (source.send) source.send(JSON.stringify({ type: "ack", position: frame.position }));
              resolve([way, frames]);
            };
          }),
      );
      const failed = await new Promise((resolve) => {
        const socket = new WebSocket(`${sockets}?token=${token}`);
        socket.onclose = ({ code }) => resolve(code);
      });
      return { ...Object.fromEntries(await Promise.all(all)), failed };
    },
    { url, token, socketTicket, eventTicket },
  );
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
