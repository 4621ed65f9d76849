// The head of a table sticks below the header of the page if the table fits into its frame. The frame of a wider
// table scrolls, so the head cannot stick to the page.

const root = document.documentElement;
const header = document.querySelector(".bar");
const observer = new ResizeObserver((entries) => entries.forEach(({ target }) => markFrame(target.closest(".scroll"))));
const observed = new WeakSet();

if (header) new ResizeObserver(() => root.style.setProperty("--bar-height", `${header.offsetHeight}px`)).observe(header);

/** Watch the size of every framed table; call it again when a page has new tables. */
export function watchTables() {
  document.querySelectorAll(".scroll, .scroll > .rows").forEach((element) => {
    if (observed.has(element)) return;
    observed.add(element);
    observer.observe(element);
  });
}

function markFrame(frame) {
  frame?.toggleAttribute("data-fits", frame.scrollWidth <= frame.clientWidth);
}
