// Runs the due jobs of the given names with the real Agenda.
//
//     node agenda_runs.mjs 5|6 mongodb://…/database NAME …
//
// Ends when a job of each name has succeeded. Prints JSON: the number of runs by name.

import { MongoBackend } from "@agendajs/mongo-backend";
import { Agenda as Agenda6 } from "agenda";
import { Agenda as Agenda5 } from "agenda-5";

const [version, address, ...names] = process.argv.slice(2);
const settings = { name: "worker-3", processEvery: 40 };
const agenda =
  version === "5"
    ? new Agenda5({ ...settings, db: { address } })
    : new Agenda6({ ...settings, backend: new MongoBackend({ address }) });
if (version === "5") await new Promise((resolve) => agenda.on("ready", resolve));

const runs = Object.fromEntries(names.map((name) => [name, 0]));
const succeeded = new Set();
for (const name of names) {
  agenda.define(name, async () => {
    runs[name] += 1;
  });
  agenda.on(`success:${name}`, () => succeeded.add(name));
}
await agenda.start();
while (succeeded.size < names.length) await new Promise((resolve) => setTimeout(resolve, 10));
await agenda.stop();
process.stdout.write(JSON.stringify(runs), () => process.exit(0));
