// The button that switches between the themes: the system's, light and dark.

const THEMES = ["system", "light", "dark"];
const root = document.documentElement;
const button = document.getElementById("theme");

/** Show the button, with the present theme. */
export function startTheme() {
  button.hidden = false;
  button.addEventListener("click", switchTheme);
  showTheme();
}

/** Switch to the next theme, and keep it in a cookie. */
export function switchTheme() {
  const theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = theme;
  const { themeCookie, cookiePath } = root.dataset;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${themeCookie}=${theme}; Path=${cookiePath}${secure}; Max-Age=31536000; SameSite=Lax`;
  showTheme();
  document.dispatchEvent(new Event("jobmon:theme"));
}

function showTheme() {
  button.title = `Theme: ${root.dataset.theme}`;
  button.setAttribute("aria-label", button.title);
}
