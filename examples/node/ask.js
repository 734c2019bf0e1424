// Streams one answer: node ask.js "My card has not arrived"
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const address = process.env.PENNYWEIGHT_ADDRESS ?? "localhost:50051";
const key = process.env.PENNYWEIGHT_API_KEY ?? "pennyweight-development";
const question = process.argv[2] ?? "My card has not arrived";

const definition = loader.loadSync("pennyweight/router/v1/router.proto", {
  includeDirs: [fileURLToPath(new URL("../../protos", import.meta.url))],
  enums: String, // REASON_FIXED_TIER, not 1
  longs: Number, // micro-USD fit
  oneofs: true, // response.event names what is set
  defaults: true, // what is 0, as the price of a stored answer, is sent as nothing
});
const { RouterService } = grpc.loadPackageDefinition(definition).pennyweight.router.v1;
const router = new RouterService(address, grpc.credentials.createInsecure());

const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${key}`);
const request = {
  route: "support-chat",
  prompt: { messages: [{ role: "ROLE_USER", content: question }] },
};

const call = router.generate(request, metadata, { deadline: Date.now() + 30_000 });
call.on("data", (response) => {
  if (response.event === "delta") {
    process.stdout.write(response.delta.text);
  } else if (response.event === "finished") {
    const { decision, usage, cost } = response.finished.summary;
    console.log(`\n${decision.tier}: ${decision.explanation}`);
    console.log(`${usage.outputTokens} tokens, ${cost.microUsd} micro-USD`);
  }
});
call.on("error", (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
call.on("close", () => router.close());
