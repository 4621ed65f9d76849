// Starts the viewer of openapi.json. A token that is typed into it stays in this page's memory.

/* global SwaggerUIBundle */
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  const { theme } = root.dataset;
  const isDark = theme === "dark" || (theme === "system" && system.matches);
  root.classList.toggle("dark-mode", isDark && !matchMedia("print").matches);
}

followTheme();
system.addEventListener("change", followTheme);
document.addEventListener("jobmon:theme", followTheme);
SwaggerUIBundle({
  url: document.getElementById("docs").dataset.url,
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // the default is on another origin
});
