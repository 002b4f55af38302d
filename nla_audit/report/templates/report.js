"use strict";
// Tables sort by a click on a heading; a second click turns the order round.
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true });

  function key(row, column) {
    const { sort, missing } = row.cells[column].dataset;
    if (missing !== undefined) return null;
    return sort === undefined ? row.cells[column].textContent.trim() : Number(sort);
  }

  function compare(a, b) {
    // What is not known comes last in either order.
    if (a === null || b === null) return a === b ? 0 : a === null ? Infinity : -Infinity;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return collator.compare(String(a), String(b));
  }

  function sort(table, heading, column) {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const keyed = Array.from(body.rows, (row) => [key(row, column), row]);
    keyed.sort(([a], [b]) => {
      const order = compare(a, b);
      return Math.abs(order) === Infinity || !descending ? order : -order;
    });
    body.append(...keyed.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading, column));
    });
  }
})();
