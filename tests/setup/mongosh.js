// Emulates the part of mongosh that the scripts of `jobmon init --print` use. The arguments are
// two files: the server's state and the script. Reads are answered from the state; the commands that
// mongosh would send are printed as JSON.
const { readFileSync } = require("fs");
const vm = require("vm");
const [state, script] = [process.argv[2], process.argv[3]].map((file) => readFileSync(file, "utf8"));
const known = JSON.parse(state);
const sent = [];
const send = (db, command) => { sent.push({ db, command }); };
const collection = (db, name) => ({
  getIndexes: () => {
    const indexes = (known.indexes[db] || {})[name];
    if (!indexes) throw new Error(`ns does not exist: ${db}.${name}`);
    return indexes;
  },
  createIndex: (key, options) =>
    send(db, { createIndexes: name, indexes: [{ key: Object.entries(key), ...options }] }),
  dropIndex: (index) => send(db, { dropIndexes: name, index }),
  updateOne: (q, u, options) => {
    if (u.$set?.at) u.$set.at = null; // a Date, which JSON cannot hold; the tests ignore it
    send(db, { update: name, updates: [{ q, u, ...options }] });
  },
  deleteOne: (q) => send(db, { delete: name, deletes: [{ q, limit: 1 }] }),
});
const database = (db) => ({
  getSiblingDB: database,
  getCollection: (name) => collection(db, name),
  getCollectionNames: () => Object.keys(known.indexes[db] || {}),
  createCollection: (name) => {
    send(db, { create: name });
    known.indexes[db] = { ...known.indexes[db], [name]: [] };
  },
  getRole: (name) => (known.roles.includes(name) ? { role: name } : null),
  getUser: (name) => ((known.users[db] || []).includes(name) ? { user: name } : null),
  createRole: ({ role, ...rest }) => send(db, { createRole: role, ...rest }),
  dropRole: (role) => send(db, { dropRole: role }),
  grantPrivilegesToRole: (role, privileges) =>
    send(db, { grantPrivilegesToRole: role, privileges }),
  revokePrivilegesFromRole: (role, privileges) =>
    send(db, { revokePrivilegesFromRole: role, privileges }),
  createUser: ({ user, ...rest }) => send(db, { createUser: user, ...rest }),
  dropUser: (user) => send(db, { dropUser: user }),
  grantRolesToUser: (user, roles) => send(db, { grantRolesToUser: user, roles }),
  changeUserPassword: (user, pwd) => send(db, { updateUser: user, pwd }),
});
const shell = {
  db: database("test"),
  print: () => {},
  passwordPrompt: () => "typed-in",
  rs: { initiate: (config) => send("admin", { replSetInitiate: config }) },
};
// Line by line, as mongosh runs a pasted script.
const context = vm.createContext(shell);
for (const line of script.split("\n")) vm.runInContext(line, context);
console.log(JSON.stringify(sent));
