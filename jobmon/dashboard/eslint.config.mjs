// The rules by which `make lint` checks the scripts of the pages.
import js from "@eslint/js";
import { defineConfig } from "eslint/config";
import globals from "globals";

export default defineConfig({
  files: ["static/*.js"], // the files in static/vendor are not checked
  extends: [js.configs.recommended],
  linterOptions: { reportUnusedDisableDirectives: "error" },
  languageOptions: { globals: globals.browser },
  rules: {
    "consistent-return": "error",
    eqeqeq: "error",
    "max-lines": ["error", 400],
    "no-implicit-globals": "error",
    "no-shadow": "error",
    "no-var": "error",
    "object-shorthand": "error",
    "prefer-const": "error",
    "prefer-template": "error",
  },
});
