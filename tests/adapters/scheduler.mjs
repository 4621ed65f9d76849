// Runs the real Agenda or Pulse while jobmon acts on its jobs.
//
//     node scheduler.mjs agenda-5|agenda-6|pulse mongodb://…/database
//
// Prints JSON: the ids of the jobs `fails`, which has failed, and `waits`, which is due in a day.
// When both have succeeded, it prints JSON again, the number of runs of each job, and ends.

import { MongoBackend } from "@agendajs/mongo-backend";
import pulse from "@pulsecron/pulse";
import { Agenda as Agenda6 } from "agenda";
import { Agenda as Agenda5 } from "agenda-5";

const [library, address] = process.argv.slice(2);
const settings = { name: "worker-1", processEvery: 40 };
const scheduler = {
  "agenda-5": () => new Agenda5({ ...settings, db: { address } }),
  "agenda-6": () => new Agenda6({ ...settings, backend: new MongoBackend({ address }) }),
  pulse: () => new pulse.Pulse({ ...settings, db: { address } }),
}[library]();
if (library !== "agenda-6") await new Promise((resolve) => scheduler.on("ready", resolve));

const print = (value) => new Promise((resolve) => process.stdout.write(`${JSON.stringify(value)}\n`, resolve));
const waitUntil = async (isTrue) => {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 10));
};
const runs = { fails: 0, waits: 0 };
const seenEvents = new Set();
scheduler.define("fails", async () => {
  runs.fails += 1;
  if (runs.fails === 1) throw new Error("The bank refused.");
});
scheduler.define("waits", async () => {
  runs.waits += 1;
});
for (const event of ["fail:fails", "success:fails", "success:waits"]) {
  scheduler.on(event, () => seenEvents.add(event));
}
await scheduler.start();
const waits = await scheduler.schedule(new Date(Date.now() + 86_400_000), "waits");
const fails = await scheduler.now("fails");
await waitUntil(() => seenEvents.has("fail:fails"));
await print({ fails: String(fails.attrs._id), waits: String(waits.attrs._id) });
await waitUntil(() => seenEvents.has("success:fails") && seenEvents.has("success:waits"));
await scheduler.stop();
await print(runs);
process.exit(0);
