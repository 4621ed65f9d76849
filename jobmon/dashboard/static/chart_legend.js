// The legend of a chart: what each line is, its value at the cursor, and a button that hides the line.

/**
 * A head for the chart: its title, a legend of `entries` ({ label, style, isBar, isHidden }), and
 * `show(moment, values)`, which shows these texts. `toggle(lineIndex)` hides or shows a line;
 * entries without `isHidden` have no button.
 */
export function makeHead(title, entries, toggle) {
  const head = make("div", "chart-head");
  const moment = make("span", "moment");
  const list = make("ul", "keys-of-chart");
  const heading = document.createElement("h2");
  heading.textContent = title;
  const values = entries.map((entry, lineIndex) => {
    const item = document.createElement("li");
    const key = make(entry.isHidden === undefined ? "span" : "button", "key");
    const value = make("span", "value");
    key.append(make("span", `swatch ${entry.isBar ? "block" : "line"} ${entry.style}`), entry.label, " ", value);
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

function make(tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}
