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
  if (!(await write(text))) {
    announcement.textContent = "The browser does not allow copying";
    return;
  }
  button.classList.add("done");
  announcement.textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("done");
    announcement.textContent = "";
  }, SHOWN_MS);
}

/** Write a text to the clipboard; returns whether that was possible. */
async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, browsers have no `navigator.clipboard`, except on localhost. Others may refuse.
    return writeWithoutClipboard(text);
  }
}

function writeWithoutClipboard(text) {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  const isWritten = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isWritten;
}
