// Starts the scripts of the pages. Without scripts the pages work, but have no charts and are not updated.

import { startCopyButtons } from "./clipboard.js";
import { startFilters } from "./filters.js";
import { startFind } from "./find.js";
import { startFolding } from "./folding.js";
import { startKeys } from "./keys.js";
import { startUpdates, update } from "./live.js";
import { startRowLinks } from "./row_links.js";
import { startSignIn } from "./sign_in.js";
import { watchTables } from "./table_heads.js";
import { startTheme } from "./theme.js";
import { startPrinting } from "./times.js";
import { startWindow } from "./window.js";

const UPDATE_MS = 1000;

startUpdates();
startTheme();
startKeys();
startFind();
startCopyButtons();
startFolding();
startFilters();
startRowLinks();
startWindow();
startSignIn();
startPrinting();
watchTables();
const unavailableNotice = document.querySelector("[data-reload-after]");
if (unavailableNotice) setTimeout(() => location.reload(), Number(unavailableNotice.dataset.reloadAfter) * 1000);
update();
setInterval(update, UPDATE_MS);
