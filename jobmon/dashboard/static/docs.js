// Starts the viewer of /openapi.json. A token that is typed into it stays in this page's memory.

/* global SwaggerUIBundle */
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // the default is on another origin
});
