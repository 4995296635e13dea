"use strict";
// Tables sort by the heads of their columns and filter by words; without script they are plain tables.
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.querySelectorAll("th[data-column]")];
  const tools = document.createElement("p"), said = document.createElement("span");
  tools.className = "tools";
  said.setAttribute("role", "status");
  const order = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.order === undefined ? cell.textContent.trim() : Number(cell.dataset.order);
  };
  // What has no end comes after every number, what is unknown after that, whichever way the numbers go.
  const rank = (value) => (typeof value === "string" || Number.isFinite(value) ? 0 : Number.isNaN(value) ? 2 : 1);
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en"));
  const sort = (head) => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1, column = Number(head.dataset.column);
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const keyed = rows.map((row) => [order(row, column), row]);
    keyed.sort(([a], [b]) => rank(a) - rank(b) || (rank(a) ? 0 : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
    said.textContent = `sorted by ${head.textContent}, ${head.getAttribute("aria-sort")}`;
  };
  if (rows.length < 2) continue;
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.setAttribute("aria-sort", "none");
    head.append(button);
  }
  table.closest(".scroll").before(tools);
  tools.append(said);
  if (rows.length < 5) continue;
  const label = document.createElement("label"), input = document.createElement("input");
  input.type = "search";
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    said.textContent = `${shown} of ${rows.length} rows`;
  });
  label.append("Filter ", input);
  tools.prepend(label);
}
// A closed part isn't printed.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
