// Buttons that copy a text: their `data-copy`, or the text of the element `data-copy-of` or of the next element.

const SHOWN_MS = 1200;
const announcement = document.getElementById("announcement");

/** Let every copy button work, also those that an update adds later. */
export function startCopyButtons() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) copy(button);
  });
}

async function copy(button) {
  const { copy: fixedText, copyOf } = button.dataset;
  const text = fixedText ?? (copyOf ? document.getElementById(copyOf) : button.nextElementSibling).textContent;
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copySelection(text);
  button.classList.add("done");
  announcement.textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("done");
    announcement.textContent = "";
  }, SHOWN_MS);
}

// Browsers have no `navigator.clipboard` without TLS.
function copySelection(text) {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus();
}
