// The viewer of /openapi.json. A token that is given to it stays in this page's memory.
"use strict";

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // another origin's
});
