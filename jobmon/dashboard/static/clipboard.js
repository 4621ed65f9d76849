// Buttons that copy a text: `data-copy`, or the text of the element with the id `data-copy-of`, or of the next element.

const SHOWN_MS = 1200;
const announcement = document.getElementById("announcement");

/** Make all copy buttons work, also buttons that an update adds later. */
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
  else copyWithoutClipboard(text);
  button.classList.add("done");
  announcement.textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("done");
    announcement.textContent = "";
  }, SHOWN_MS);
}

// Without TLS, browsers have no `navigator.clipboard`, except on localhost.
function copyWithoutClipboard(text) {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus();
}
