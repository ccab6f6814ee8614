// usage: node verify.mjs <key set address> <issuer> <token>; prints the claims, or fails with the reason.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // Node 18 has it only under this name
globalThis.CryptoKey ??= webcrypto.CryptoKey;

const { createRemoteJWKSet, jwtVerify } = await import("jose");
const [keySet, issuer, token] = process.argv.slice(2);
const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(keySet)), {
  issuer,
  audience: "herald",
  typ: "at+jwt",
  algorithms: ["RS256", "EdDSA"],
  requiredClaims: ["exp", "iat", "nbf", "sub", "jti", "sid"],
});
console.log(JSON.stringify(payload));
