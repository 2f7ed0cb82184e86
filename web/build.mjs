// `npm run build`: the page and the viewer into src/anyform/server/static, and build.json with the hashes of what went
// in and what came out. A test reads build.json, so nobody can change a source and forget to build.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "src", "anyform", "server", "static");
const MAX_GZIP = 400_000; // bytes of everything together

const shared = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
};

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await build({ ...shared, entryPoints: { viewer: join(here, "src/viewer/entry.ts") }, outdir: out });
await build({ ...shared, entryPoints: { app: join(here, "src/page/app.ts") }, outdir: out, external: ["./viewer.js"] });
const styles = { app: join(here, "src/page/app.css"), viewer: join(here, "src/viewer/inline.css") };
await build({ ...shared, entryPoints: styles, outdir: out });
for (const name of ["index.html", "icon.svg", "THIRD_PARTY.txt"]) {
  writeFileSync(join(out, name), readFileSync(join(here, "public", name)));
}

const inputs = ["build.mjs", "package.json", "package-lock.json", ...files(join(here, "src")), ...files(join(here, "public"))];
const outputs = readdirSync(out).sort();
const gzip = outputs.reduce((sum, name) => sum + gzipSync(readFileSync(join(out, name))).length, 0);
const manifest = {
  sources: Object.fromEntries(inputs.sort().map((name) => [name, hash(join(here, name))])),
  built: Object.fromEntries(outputs.map((name) => [name, hash(join(out, name))])),
};
writeFileSync(join(out, "build.json"), JSON.stringify(manifest, null, 1) + "\n");
console.log(`${outputs.length} files, ${gzip} bytes gzip of at most ${MAX_GZIP}`);
if (gzip > MAX_GZIP) process.exit(1);

function files(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(here, join(entry.parentPath, entry.name)).split(sep).join("/"));
}

function hash(path) {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
