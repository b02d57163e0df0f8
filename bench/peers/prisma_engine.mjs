// Prisma's query engine 5.17 for LiteLLM where its native build cannot be had: the same engine, in the WebAssembly build
// that npm carries, behind the HTTP and GraphQL that the Python client speaks (it ships with no other protocol).
//
//   node prisma_engine.mjs -p PORT [ignored options]      DATABASE_URL, PRISMA_DML_PATH, PRISMA_MODULES (a node_modules)
//   node prisma_engine.mjs --version
//
// It serves 127.0.0.1 only. The WebAssembly build understands Prisma's JSON protocol only, so a GraphQL document is put
// into that form field by field, and the tagged values of an answer ({"$type": ..., "value": ...}) are put back.
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const ENGINE_COMMIT = "393aa359c9ad4a4bb28630fb5613f9c281cde053";
const MAX_BODY_BYTES = 64 << 20;
const CONNECTIONS = 10;
const ACTIONS = [
  "findUnique", "findFirst", "findMany", "createOne", "createMany", "updateOne", "updateMany", "upsertOne", "deleteOne",
  "deleteMany", "aggregate", "groupBy",
];
const TRACE = "{}";

if (process.argv.includes("--version")) {
  console.log(`query-engine ${ENGINE_COMMIT}`);
  process.exit(0);
}

const require = createRequire(path.join(process.env.PRISMA_MODULES, "x.js"));
const graphql = require("graphql");
const { Pool } = require("pg");
const Result = require("pg/lib/result.js");
const { PrismaPg } = require("@prisma/adapter-pg");
const { bindAdapter } = require("@prisma/driver-adapter-utils");

// types that the native engine reads as text and the adapter does not know: name, void, and arrays of names
const READ_AS = new Map([[19, 25], [2278, 25], [1003, 1009]]);
const addFields = Result.prototype.addFields;
Result.prototype.addFields = function (fields) {
  for (const field of fields) field.dataTypeID = READ_AS.get(field.dataTypeID) ?? field.dataTypeID;
  return addFields.call(this, fields);
};

async function startedEngine() {
  const folder = path.join(process.env.PRISMA_MODULES, "@prisma", "query-engine-wasm", "postgresql");
  const glue = await import(pathToFileURL(path.join(folder, "query_engine_bg.js")));
  const module = new WebAssembly.Module(fs.readFileSync(path.join(folder, "query_engine_bg.wasm")));
  glue.__wbg_set_wasm(new WebAssembly.Instance(module, { "./query_engine_bg.js": glue }).exports);
  const url = new URL(process.env.DATABASE_URL);
  const host = url.searchParams.get("host") ?? url.hostname;
  const pool = new Pool({
    host, port: Number(url.port || 5432), database: url.pathname.slice(1), user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password), max: CONNECTIONS,
  });
  const options = {
    datamodel: fs.readFileSync(process.env.PRISMA_DML_PATH, "utf8"), logLevel: "error", logQueries: false,
  };
  const engine = new glue.QueryEngine(options, () => {}, bindAdapter(new PrismaPg(pool)));
  await engine.connect(TRACE);
  return engine;
}

// GraphQL -> JSON protocol

function valueOf(node) {
  switch (node.kind) {
    case "NullValue": return null;
    case "IntValue": return Number.isSafeInteger(Number(node.value)) ? Number(node.value) : { $type: "BigInt", value: node.value };
    case "FloatValue": return Number(node.value);
    case "ListValue": return node.values.map(valueOf);
    case "ObjectValue": return objectOf(node.fields);
    default: return node.value; // strings, booleans, enums
  }
}

function objectOf(fields) {
  return Object.fromEntries(fields.map((field) => [field.name.value, valueOf(field.value)]));
}

function selectionOf(set) {
  if (!set) return {};
  return Object.fromEntries(set.selections.map((field) => [
    field.name.value,
    field.selectionSet ? queryOf(field) : true,
  ]));
}

function queryOf(field) {
  return { arguments: objectOf(field.arguments ?? []), selection: selectionOf(field.selectionSet) };
}

function requestOf(text) {
  const field = graphql.parse(text).definitions[0].selectionSet.selections[0];
  const name = field.name.value;
  const query = queryOf(field);
  if (name === "queryRaw" || name === "executeRaw") return { action: name, query };
  let action = ACTIONS.find((one) => name.startsWith(one));
  let modelName = name.slice(action.length);
  if (modelName.endsWith("OrThrow")) {
    modelName = modelName.slice(0, -"OrThrow".length);
    action += "OrThrow";
  }
  return { modelName, action, query };
}

// the answer's tagged values -> plain ones

function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  if ("$type" in value) return value.value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
}

function answered(text) {
  const answer = JSON.parse(text);
  if (answer.errors || !answer.data) return answer;
  const result = plain(Object.values(answer.data)[0]);
  if (result?.columns && result.types && result.rows) parseJson(result);
  return { data: { result } };
}

// rows of a raw query: the native engine gives a JSON column's value, the adapter its text
function parseJson({ types, rows }) {
  types.forEach((type, index) => {
    if (type !== "json") return;
    for (const row of rows) if (typeof row[index] === "string") row[index] = JSON.parse(row[index]);
  });
}

const engine = await startedEngine();

async function answerTo(request, body) {
  const [, first, id, action] = request.url.split("?")[0].split("/");
  const transaction = request.headers["x-transaction-id"];
  if (first === "status") return { status: "ok" };
  if (first === "metrics") return {};
  if (first === "transaction") {
    if (id === "start") return JSON.parse(await engine.startTransaction(body, TRACE));
    return JSON.parse(await (action === "commit" ? engine.commitTransaction(id, TRACE) : engine.rollbackTransaction(id, TRACE)));
  }
  const asked = JSON.parse(body);
  if (!asked.batch) return answered(await engine.query(JSON.stringify(requestOf(asked.query)), TRACE, transaction));
  const batch = asked.batch.map((one) => requestOf(one.query));
  const all = { batch, transaction: asked.transaction ? { isolationLevel: null } : undefined };
  return JSON.parse(await engine.query(JSON.stringify(all), TRACE, transaction));
}

function bodyOf(request) {
  return new Promise((resolve, reject) => {
    const parts = [];
    let size = 0;
    request.on("data", (part) => {
      size += part.length;
      if (size > MAX_BODY_BYTES) request.destroy(new Error("body too long"));
      else parts.push(part);
    });
    request.on("end", () => resolve(Buffer.concat(parts).toString()));
    request.on("error", reject);
  });
}

const server = http.createServer(async (request, response) => {
  let answer, body = "";
  try {
    body = await bodyOf(request);
    answer = await answerTo(request, body);
  } catch (problem) {
    answer = { errors: [{ error: String(problem?.message ?? problem), user_facing_error: { message: String(problem), meta: {} } }] };
    if (process.env.PRISMA_ENGINE_DEBUG) console.error("prisma_engine:", problem);
  }
  if (process.env.PRISMA_ENGINE_DEBUG && answer?.errors) console.error("prisma_engine:", body.slice(0, 600), JSON.stringify(answer.errors).slice(0, 500));
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(answer));
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.argv[process.argv.indexOf("-p") + 1]), "127.0.0.1");
for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => process.exit(0));
// its parent gone (kill -9), it has nobody to serve
const parent = process.ppid;
setInterval(() => { if (process.ppid !== parent) process.exit(0); }, 500).unref();
