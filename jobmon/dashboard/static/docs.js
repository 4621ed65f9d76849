// Starts the viewer of openapi.json. A token that a person types into it stays in the memory of this page.

/* global SwaggerUIBundle */
const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  const { theme } = root.dataset;
  const isDark = theme === "dark" || (theme === "system" && systemDark.matches);
  root.classList.toggle("dark-mode", isDark && !matchMedia("print").matches);
}

followTheme();
systemDark.addEventListener("change", followTheme);
document.addEventListener("jobmon:theme", followTheme);
SwaggerUIBundle({
  url: document.getElementById("docs").dataset.url,
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // the default is on another origin
});
