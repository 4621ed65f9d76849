// The head of a chart: its title, and a legend with the name and value of each line and a button that hides it.

/**
 * Returns `head`, the element with the title and a legend of `entries` ({ label, style, isBar, isHidden }), and
 * `show(moment, values)`, which shows these texts in the head. `toggle(lineIndex)` hides or shows a line, and
 * returns whether the line is hidden; entries without `isHidden` have no button.
 */
export function makeHead(title, entries, toggle) {
  const head = makeElement("div", "chart-head");
  const moment = makeElement("span", "moment");
  const list = makeElement("ul", "chart-legend");
  const heading = document.createElement("h2");
  heading.textContent = title;
  const values = entries.map((entry, lineIndex) => {
    const item = document.createElement("li");
    const key = makeElement(entry.isHidden === undefined ? "span" : "button", "key");
    const value = makeElement("span", "value");
    key.append(makeElement("span", `swatch ${entry.isBar ? "block" : "line"} ${entry.style}`), entry.label, " ", value);
    if (entry.isHidden !== undefined) {
      key.type = "button";
      key.setAttribute("aria-pressed", String(!entry.isHidden));
      key.addEventListener("click", () => key.setAttribute("aria-pressed", String(!toggle(lineIndex))));
    }
    item.append(key);
    list.append(item);
    return value;
  });
  head.append(heading, moment, list);
  const show = (text, texts) => {
    moment.textContent = text;
    values.forEach((value, lineIndex) => { value.textContent = texts[lineIndex]; });
  };
  return { head, show };
}

function makeElement(tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}
