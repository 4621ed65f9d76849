// The search box: offers suggestions, pages and commands while the viewer types; Ctrl+K shows commands first.

import { switchTheme } from "./theme.js";

const PAUSE_MS = 150; // between the last key and the request
const box = document.getElementById("find");
const list = document.getElementById("suggestions");
const announcement = document.getElementById("announcement");
let activeIndex = -1; // of the option that Enter chooses; -1: Enter submits the text
let suggestions = ""; // the options that the server found, as markup
let suggestedFor = ""; // the text for which the server found them
let isPalette = false; // until the list is closed: commands come first, and Enter chooses the first option
let timer = 0;
let requestController = null; // aborts the running request

/** Make the box a combobox, on pages that have the box. */
export function startFind() {
  if (!box) return;
  const attributes = {
    role: "combobox", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list", "aria-haspopup": "listbox",
  };
  Object.entries(attributes).forEach(([name, value]) => box.setAttribute(name, value));
  box.addEventListener("input", updateSuggestions);
  box.addEventListener("keydown", handleKey);
  box.addEventListener("blur", closeList);
  box.form.addEventListener("submit", handleSubmit);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
  list.addEventListener("click", (event) => choose(event.target.closest("[role=option]")));
}

/** Focus the search box. */
export function focusFind() {
  box?.focus();
  box?.select();
}

/** Focus the search box, and show the pages and commands. */
export function openPalette() {
  if (!box) return;
  focusFind();
  isPalette = document.activeElement === box; // an open dialog keeps the focus
  showOptions();
}

function listOptions() {
  return [...list.children];
}

function updateSuggestions() {
  cancelRequest();
  if (box.value.trim()) timer = setTimeout(requestSuggestions, PAUSE_MS);
  else suggestions = "";
  showOptions();
}

function cancelRequest() {
  clearTimeout(timer);
  requestController?.abort();
}

async function requestSuggestions() {
  requestController = new AbortController();
  const text = box.value;
  const address = `${box.form.action}?${new URLSearchParams({ q: text })}`;
  try {
    const answer = await fetch(address, { headers: { "X-Jobmon-Part": "1" }, signal: requestController.signal });
    if (!answer.ok) return;
    suggestions = await answer.text();
    suggestedFor = text;
  } catch {
    return; // a newer text has aborted the request, or there is no connection: Enter still submits the text
  }
  showOptions();
}

/** Show the suggestions and commands for the present text; the active option stays active. */
function showOptions() {
  if (document.activeElement !== box) return;
  const activeText = listOptions()[activeIndex]?.textContent;
  const text = box.value.trim().toLowerCase();
  const commandOptions = listCommands(text).map(makeOption);
  list.innerHTML = suggestions;
  list[isPalette ? "prepend" : "append"](...commandOptions);
  listOptions().forEach((option, position) => { option.id = `suggestion-${position}`; });
  list.hidden = !list.children.length;
  box.setAttribute("aria-expanded", String(!list.hidden));
  const index = activeText ? listOptions().findIndex((option) => option.textContent === activeText) : -1;
  const activatesFirst = isPalette && text && (commandOptions.length || suggestedFor === box.value);
  activate(index < 0 && activatesFirst ? 0 : index);
  const count = listOptions().length;
  announcement.textContent = count ? `${count} ${count === 1 ? "suggestion" : "suggestions"}` : "No suggestions";
}

function closeList() {
  cancelRequest();
  isPalette = false;
  list.hidden = true;
  box.setAttribute("aria-expanded", "false");
  activate(-1);
}

// The commands whose names have all words of `text`: links of the menus, elements with `data-command`, and two more.
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
  const [nameSpan, noteSpan] = [name, note].map((text) => Object.assign(document.createElement("span"), { textContent: text }));
  noteSpan.className = "note";
  option.append(nameSpan, " ", noteSpan);
  option.run = run;
  return option;
}

function activate(index) {
  activeIndex = index;
  listOptions().forEach((option, position) => option.setAttribute("aria-selected", String(position === index)));
  const option = listOptions()[index];
  if (option) {
    box.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  } else {
    box.removeAttribute("aria-activedescendant");
  }
}

function handleKey(event) {
  const count = listOptions().length;
  const isOpen = !list.hidden;
  if (event.isComposing) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (!isOpen) showOptions();
    // The keys go around all options and one more position, where no option is active.
    else activate((activeIndex + 1 + (event.key === "ArrowDown" ? 1 : count)) % (count + 1) - 1);
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (isOpen) closeList();
    else if (box.value) clearBox();
    else box.blur();
  }
}

function handleSubmit(event) {
  const option = list.hidden ? null : listOptions()[activeIndex];
  if (!option) return;
  event.preventDefault();
  choose(option);
}

function choose(option) {
  if (!option) return;
  const { address, text } = option.dataset;
  if (text) {
    box.value = text;
    updateSuggestions();
    return;
  }
  closeList();
  if (address) {
    location.assign(address);
    return;
  }
  clearBox();
  box.blur();
  option.run();
}

function clearBox() {
  box.value = "";
  suggestions = "";
}
