// The real Agenda at work: every way in which it leaves a document, then this process ends.
//
//     node agenda.mjs 5|6 mongodb://…/database [logs]
//
// Prints, as JSON, the id of the job of each case.

import { MongoBackend } from "@agendajs/mongo-backend";
import { Agenda as Agenda6 } from "agenda";
import { Agenda as Agenda5 } from "agenda-5";
import { MongoClient } from "mongodb";

const HOUR_MS = 3_600_000;
const [version, address, logs] = process.argv.slice(2);
const client = await MongoClient.connect(address);
const jobs = client.db().collection("agendaJobs");
const ids = {};

function agenda(name) {
  const settings = { name, processEvery: 40 };
  if (version === "5") {
    const made = new Agenda5({ ...settings, db: { address } });
    return new Promise((resolve) => made.on("ready", () => resolve(made)));
  }
  return new Agenda6({ ...settings, backend: new MongoBackend({ address }), logging: !!logs });
}

/** Defines jobs of which a failed one is tried again, so often and so much later. */
function defineRetried(name, work, { delay, maxRetries }) {
  if (version === "6") {
    const backoff = ({ attempt }) => (attempt <= maxRetries ? delay : null);
    worker.define(name, work, { backoff });
    return;
  }
  worker.define(name, work); // as its documentation has it: the program schedules the retry
  worker.on(`fail:${name}`, async (_, job) => {
    if (job.attrs.failCount <= maxRetries) {
      job.attrs.nextRunAt = new Date(Date.now() + delay);
      await job.save();
    }
  });
}

async function eventually(name, query) {
  while (!(await jobs.findOne({ name, ...query }))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function note(job) {
  ids[job.attrs.name] = String(job.attrs._id);
}

const refuse = async () => {
  throw new Error("The bank refused.");
};
const forever = () => new Promise(() => {});
const data = { user: { id: "ada" }, apiKey: "hidden" };

const worker = await agenda("worker-1");
worker.define("succeeds", async () => {});
worker.define("fails", refuse);
worker.define("repeats", async () => {});
worker.define("repeats and fails", refuse);
worker.define("runs", forever);
worker.define("disabled", async () => {});
defineRetried("retries", refuse, { delay: HOUR_MS, maxRetries: 3 });
defineRetried("is dead", refuse, { delay: 0, maxRetries: 1 });
let tries = 0;
let ticks = 0;
const recover = () => (tries++ ? Promise.resolve() : refuse());
defineRetried("recovers", recover, { delay: 0, maxRetries: 3 });
if (logs) {
  worker.define("ticks", () => (ticks++ % 3 ? Promise.resolve() : refuse()));
  worker.define("is removed", async () => {}, { removeOnComplete: true });
}
await worker.start();

if (logs) {
  note(await worker.every("0.1 seconds", "ticks"));
  await worker.now("is removed");
}
note(await worker.now("succeeds", data));
note(await worker.now("fails", data));
note(await worker.now("retries", data));
note(await worker.now("is dead", { user: { id: "bob" } }));
note(await worker.now("recovers", { user: { id: "bob" } }));
note(await worker.every("1 hour", "repeats", data));
note(await worker.every("1 hour", "repeats and fails"));
note(await worker.create("runs", data).priority("high").schedule("now").save());
note(await worker.now("due", data)); // no worker knows it
note(await worker.schedule("in 2 hours", "scheduled", data));
note(await worker.create("disabled", data).schedule("in 1 hour").disable().save());
const unscheduled = worker.create("unscheduled", data);
unscheduled.attrs.nextRunAt = null;
note(await unscheduled.save());

const ended = { lastFinishedAt: { $type: "date" }, lockedAt: null };
const due = { nextRunAt: { $type: "date" } };
await eventually("succeeds", ended);
await eventually("fails", ended);
await eventually("retries", { ...ended, ...due });
await eventually("is dead", { ...ended, failCount: 2 });
await eventually("recovers", { ...ended, $expr: { $gt: ["$lastFinishedAt", "$failedAt"] } });
await eventually("repeats", ended);
await eventually("repeats and fails", ended);
await eventually("runs", { lastRunAt: { $type: "date" } });

while (logs && ticks < 7) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
if (logs) {
  await worker.cancel({ name: "ticks" });
}

// Another worker that is stopped in the midst of a run: version 5 unlocks the job, 6 does not.
const other = await agenda("worker-2");
other.define("interrupted", forever);
await other.start();
note(await other.now("interrupted", data));
await eventually("interrupted", { lastRunAt: { $type: "date" } });
await other.stop();

process.stdout.write(JSON.stringify(ids), () => process.exit(0)); // `runs` stays locked
