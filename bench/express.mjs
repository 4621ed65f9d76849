// Serves a job with its attempts by Express and MongoDB's driver, to compare jobmon with it. It has
// two processes and verifies the token. overhead.py starts it in a folder with these packages.
import cluster from "node:cluster";
import express from "express";
import jwt from "jsonwebtoken";
import { MongoClient } from "mongodb";

const PROCESSES = 2;

async function serve() {
  const { JOBMON_MONGO_URI, JOBMON_JWT_SECRET_KEY, PORT } = process.env;
  const client = await MongoClient.connect(JOBMON_MONGO_URI);
  const database = client.db();
  const app = express();
  app.get("/healthz", (_, response) => response.json({ status: "ok" }));
  app.use((request, response, next) => {
    const token = (request.headers.authorization ?? "").replace("Bearer ", "");
    try {
      jwt.verify(token, JOBMON_JWT_SECRET_KEY, { algorithms: ["HS256"] });
    } catch {
      return response.sendStatus(401);
    }
    next();
  });
  app.get("/jobs/:id", async (request, response) => {
    const jobId = request.params.id;
    const job = await database.collection("jobs").findOne({ jobId });
    const attempts = await database
      .collection("job_attempts")
      .find({ jobId })
      .sort({ attemptNumber: 1 })
      .toArray();
    response.json({ job, attempts });
  });
  app.listen(Number(PORT), "127.0.0.1");
}

if (cluster.isPrimary) {
  for (let number = 0; number < PROCESSES; number += 1) cluster.fork();
  process.on("SIGTERM", () => {
    for (const worker of Object.values(cluster.workers)) worker.kill();
    process.exit(0);
  });
} else {
  await serve();
}
