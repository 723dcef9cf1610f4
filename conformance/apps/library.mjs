// An actor that uses drizzle, with migrations as drizzle-kit writes them.
import { actor } from "rivetkit";
import { db, integer, sqliteTable, text } from "rivetkit/db/drizzle";
import { createVars, onWake, whoami } from "./life.mjs";

const books = sqliteTable("books", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  title: text("title").notNull(),
  pages: integer("pages").notNull(),
});

const migrations = {
  journal: { entries: [{ idx: 0, when: 1_700_000_000_000, tag: "0000_first", breakpoints: true }] },
  migrations: {
    m0000: "CREATE TABLE `books` (`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL, `title` text NOT NULL, `pages` integer NOT NULL)",
  },
};

export const library = actor({
  state: { wakes: 0 },
  db: db({ schema: { books }, migrations, profiling: { enabled: false } }),
  createVars,
  onWake,
  actions: {
    whoami,
    add: async (c, title, pages) => {
      const [{ id }] = await c.db.insert(books).values({ title, pages }).returning({ id: books.id });
      return id;
    },
    /** Adds all or, if one of them has no pages, none. */
    addAll: (c, titles) =>
      c.db.transaction(
        async (tx) => {
          for (const [title, pages] of titles) {
            await tx.insert(books).values({ title, pages });
            if (pages < 1) throw new Error("a book without pages");
          }
          return titles.length;
        },
        { name: "add-all" },
      ),
    all: (c) => c.db.select().from(books).orderBy(books.title),
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 120_000 },
});
