// Runs the real Agenda until it has stored a job document of each kind that it knows, and ends.
//
//     node agenda.mjs 5|6 mongodb://…/database [logs]
//
// With `logs`, version 6 logs its runs, and two more jobs run. Prints JSON: the job ids by job name.

import { MongoBackend } from "@agendajs/mongo-backend";
import { Agenda as Agenda6 } from "agenda";
import { Agenda as Agenda5 } from "agenda-5";
import { MongoClient } from "mongodb";

const HOUR_MS = 3_600_000;
const [version, address, logs] = process.argv.slice(2);
const client = await MongoClient.connect(address);
const jobs = client.db().collection("agendaJobs");
const ids = {};

function startAgenda(name) {
  const settings = { name, processEvery: 40 };
  if (version === "5") {
    const agenda5 = new Agenda5({ ...settings, db: { address } });
    return new Promise((resolve) => agenda5.on("ready", () => resolve(agenda5)));
  }
  return new Agenda6({ ...settings, backend: new MongoBackend({ address }), logging: !!logs });
}

/** Defines a job that is retried up to `maxRetries` times, each time after `delayMs`. */
function defineRetried(name, work, { delayMs, maxRetries }) {
  if (version === "6") {
    const backoff = ({ attempt }) => (attempt <= maxRetries ? delayMs : null);
    worker.define(name, work, { backoff });
    return;
  }
  worker.define(name, work); // version 5 has no retries; its documentation recommends this listener
  worker.on(`fail:${name}`, async (_, job) => {
    if (job.attrs.failCount <= maxRetries) {
      job.attrs.nextRunAt = new Date(Date.now() + delayMs);
      await job.save();
    }
  });
}

async function waitForJob(name, query) {
  while (!(await jobs.findOne({ name, ...query }))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function saveId(job) {
  ids[job.attrs.name] = String(job.attrs._id);
}

const failJob = async () => {
  throw new Error("The bank refused.");
};
const neverEnd = () => new Promise(() => {});
const data = { user: { id: "ada" }, apiKey: "hidden" };

const worker = await startAgenda("worker-1");
worker.define("succeeds", async () => {});
worker.define("fails", failJob);
worker.define("repeats", async () => {});
worker.define("repeats and fails", failJob);
worker.define("runs", neverEnd);
worker.define("disabled", async () => {});
defineRetried("retries", failJob, { delayMs: HOUR_MS, maxRetries: 3 });
defineRetried("is dead", failJob, { delayMs: 0, maxRetries: 1 });
let recoverRuns = 0;
let ticks = 0;
const recover = () => (recoverRuns++ ? Promise.resolve() : failJob());
defineRetried("recovers", recover, { delayMs: 0, maxRetries: 3 });
if (logs) {
  worker.define("ticks", () => (ticks++ % 3 ? Promise.resolve() : failJob()));
  worker.define("is removed", async () => {}, { removeOnComplete: true });
}
await worker.start();

if (logs) {
  saveId(await worker.every("0.1 seconds", "ticks"));
  await worker.now("is removed");
}
saveId(await worker.now("succeeds", data));
saveId(await worker.now("fails", data));
saveId(await worker.now("retries", data));
saveId(await worker.now("is dead", { user: { id: "bob" } }));
saveId(await worker.now("recovers", { user: { id: "bob" } }));
saveId(await worker.every("1 hour", "repeats", data));
saveId(await worker.every("1 hour", "repeats and fails"));
saveId(await worker.create("runs", data).priority("high").schedule("now").save());
saveId(await worker.now("due", data)); // no worker defines this job
saveId(await worker.schedule("in 2 hours", "scheduled", data));
saveId(await worker.create("disabled", data).schedule("in 1 hour").disable().save());
const unscheduled = worker.create("unscheduled", data);
unscheduled.attrs.nextRunAt = null;
saveId(await unscheduled.save());

const hasEnded = { lastFinishedAt: { $type: "date" }, lockedAt: null };
const hasNextRun = { nextRunAt: { $type: "date" } };
await waitForJob("succeeds", hasEnded);
await waitForJob("fails", hasEnded);
await waitForJob("retries", { ...hasEnded, ...hasNextRun });
await waitForJob("is dead", { ...hasEnded, failCount: 2 });
await waitForJob("recovers", { ...hasEnded, $expr: { $gt: ["$lastFinishedAt", "$failedAt"] } });
await waitForJob("repeats", hasEnded);
await waitForJob("repeats and fails", hasEnded);
await waitForJob("runs", { lastRunAt: { $type: "date" } });

while (logs && ticks < 7) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
if (logs) {
  await worker.cancel({ name: "ticks" });
}

// Another worker stops while its job runs: version 5 unlocks the job, version 6 does not.
const secondWorker = await startAgenda("worker-2");
secondWorker.define("interrupted", neverEnd);
await secondWorker.start();
saveId(await secondWorker.now("interrupted", data));
await waitForJob("interrupted", { lastRunAt: { $type: "date" } });
await secondWorker.stop();

process.stdout.write(JSON.stringify(ids), () => process.exit(0)); // `runs` stays locked
