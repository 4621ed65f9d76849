// The search box: suggestions, pages and commands while typing; Ctrl+K shows pages and commands first.

import { switchTheme } from "./theme.js";

const PAUSE_MS = 150; // between the last key and the request
const box = document.getElementById("find");
const list = document.getElementById("suggestions");
const announcement = document.getElementById("announcement");
let active = -1; // index of the option that Enter opens; -1: Enter submits the text
let suggestions = ""; // the options that the server found, as markup
let suggestedFor = ""; // the text for which the server found them
let isPalette = false; // commands come first, and Enter chooses the first option
let timer = 0;
let request = null;

/** Make the box a combobox, on pages that have it. */
export function startFind() {
  if (!box) return;
  const attributes = {
    role: "combobox", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list", "aria-haspopup": "listbox",
  };
  Object.entries(attributes).forEach(([name, value]) => box.setAttribute(name, value));
  box.addEventListener("input", suggest);
  box.addEventListener("keydown", handleKey);
  box.addEventListener("blur", close);
  box.form.addEventListener("submit", submit);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
  list.addEventListener("click", (event) => choose(event.target.closest("[role=option]")));
}

/** Focus the box to search. */
export function focusFind() {
  isPalette = false;
  box?.focus();
  box?.select();
}

/** Focus the box, and show the pages and commands. */
export function openPalette() {
  if (!box) return;
  focusFind();
  isPalette = true;
  show();
}

function options() {
  return [...list.children];
}

function suggest() {
  stopLoading();
  if (box.value.trim()) timer = setTimeout(load, PAUSE_MS);
  else suggestions = "";
  show();
}

function stopLoading() {
  clearTimeout(timer);
  request?.abort();
}

async function load() {
  request = new AbortController();
  const text = box.value;
  const address = `${box.form.action}?${new URLSearchParams({ q: text })}`;
  try {
    const answer = await fetch(address, { headers: { "X-Jobmon-Part": "1" }, signal: request.signal });
    if (!answer.ok) return;
    suggestions = await answer.text();
    suggestedFor = text;
  } catch {
    return; // a newer text, or no connection: Enter still submits
  }
  show();
}

/** Show the suggestions and commands for the present text; the chosen option stays chosen. */
function show() {
  if (document.activeElement !== box) return;
  const chosen = options()[active]?.textContent;
  const text = box.value.trim().toLowerCase();
  const matching = listCommands(text).map(makeOption);
  list.innerHTML = suggestions;
  list[isPalette ? "prepend" : "append"](...matching);
  options().forEach((option, index) => { option.id = `suggestion-${index}`; });
  list.hidden = !list.children.length;
  box.setAttribute("aria-expanded", String(!list.hidden));
  const kept = chosen ? options().findIndex((option) => option.textContent === chosen) : -1;
  const choosesFirst = isPalette && text && (matching.length || suggestedFor === box.value);
  activate(kept < 0 && choosesFirst ? 0 : kept);
  const count = options().length;
  announcement.textContent = count ? `${count} ${count === 1 ? "suggestion" : "suggestions"}` : "No suggestions";
}

function close() {
  stopLoading();
  list.hidden = true;
  box.setAttribute("aria-expanded", "false");
  activate(-1);
}

// The commands whose name has `text`: links of the menus, elements with `data-command`, the theme, the help of the keys.
function listCommands(text) {
  const links = [...document.querySelectorAll(".bar a:not(.brand, [data-command])")].map((link) => (
    { name: link.textContent.trim(), note: link.closest("#queue-menu") ? "queue" : "page", run: () => link.click() }
  ));
  const marked = [...document.querySelectorAll("[data-command]")].map((element) => (
    { name: element.dataset.command, note: "command", run: () => element.click() }
  ));
  const commands = [
    { name: "Switch the theme", note: "command", run: switchTheme },
    { name: "Keyboard shortcuts", note: "command", run: () => document.getElementById("help-button").click() },
  ];
  const words = text.split(/\s+/);
  return [...links, ...marked, ...commands].filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
}

function makeOption({ name, note, run }) {
  const option = document.createElement("li");
  option.setAttribute("role", "option");
  const [title, about] = [name, note].map((text) => Object.assign(document.createElement("span"), { textContent: text }));
  about.className = "note";
  option.append(title, " ", about);
  option.run = run;
  return option;
}

function activate(index) {
  active = index;
  options().forEach((option, number) => option.setAttribute("aria-selected", String(number === index)));
  const option = options()[index];
  if (option) {
    box.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  } else {
    box.removeAttribute("aria-activedescendant");
  }
}

function handleKey(event) {
  const count = options().length;
  const isOpen = !list.hidden;
  if (event.isComposing) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (!isOpen) show();
    // The keys move in a circle with one more position than options: at that one, none is chosen.
    else activate((active + 1 + (event.key === "ArrowDown" ? 1 : count)) % (count + 1) - 1);
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (isOpen) close();
    else if (box.value) clear();
    else box.blur();
  }
}

function submit(event) {
  const option = list.hidden ? null : options()[active];
  if (!option) return;
  event.preventDefault();
  choose(option);
}

function choose(option) {
  if (!option) return;
  const { address, text } = option.dataset;
  if (text) {
    box.value = text;
    suggest();
    return;
  }
  close();
  if (address) {
    location.assign(address);
    return;
  }
  clear();
  box.blur();
  option.run();
}

function clear() {
  box.value = "";
  suggestions = "";
}
