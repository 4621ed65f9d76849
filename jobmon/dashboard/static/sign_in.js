// Sign-in with a token that an identity provider has added to the address (`#access_token=…`).

const form = document.getElementById("sign-in");

/**
 * Fill the token of the address, if there is one, into the form. Anybody can send a link with their own
 * token, so the button names the subject of the token, and the viewer has to press it.
 */
export function startSignIn() {
  const token = form && new URLSearchParams(location.hash.slice(1)).get("access_token");
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.token.value = token;
  form.closest("details")?.setAttribute("open", "");
  const button = form.querySelector("button");
  button.textContent = `Sign in as ${readSubject(token) ?? "an unknown user"}`;
  button.focus();
}

/** The `sub` of a token, which is not verified here; null if there is none, or the token is bad. */
function readSubject(token) {
  try {
    const bytes = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    const text = new TextDecoder().decode(Uint8Array.from(bytes, (character) => character.charCodeAt(0)));
    const { sub } = JSON.parse(text);
    return typeof sub === "string" ? sub.slice(0, 100) : null;
  } catch {
    return null;
  }
}
