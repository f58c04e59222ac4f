// Acts on pictures in the place where they are seen: deletes, with ten seconds to undo it, makes favourites, tags.

import { postJson } from "./api.js";
import { _, ngettext } from "./texts.js";
import { say } from "./toast.js";

const ACTIONS = "/api/v1/pictures/actions";

function mark(ids, action) {
  for (const id of ids) {
    for (const one of document.querySelectorAll(`[data-picture="${id}"]`)) {
      if (action === "delete" || action === "restore") one.classList.toggle("is-gone", action === "delete");
      else if (action.endsWith("favourite")) one.classList.toggle("is-favourite", action === "favourite");
    }
  }
  document.dispatchEvent(new CustomEvent("marked"));
}

// Does something to pictures and says so; a deletion can be undone. `ids` are those of the page that it is about.
export async function act(action, asked, { tag = "", ids = asked.ids } = {}) {
  try {
    let [done, undo] = [0, []];
    for (let isAll = false; !isAll;) {
      const answer = await postJson(ACTIONS, { action, tag, ...asked });
      [done, isAll] = [done + answer.pictures, answer.is_all || !answer.pictures];
      if (answer.undo) undo.push(answer.undo);
    }
    mark(ids, action);
    const words = action === "delete" ? ngettext("%(num)s picture deleted.", "%(num)s pictures deleted.", done) : ngettext("%(num)s picture changed.", "%(num)s pictures changed.", done);
    say(words, undo.length ? () => restore(undo, ids) : null);
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}

async function restore(moments, ids) {
  try {
    let done = 0;
    for (const undo of moments) done += (await postJson(ACTIONS, { action: "restore", undo })).pictures;
    mark(ids, "restore");
    say(ngettext("%(num)s picture is back.", "%(num)s pictures are back.", done));
  } catch (error) {
    say(error.message);
  }
}
