"""The ledger's tables. Times are microseconds since the Unix epoch, UTC."""

LEDGER = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memories (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS first_handed (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contracts (
    dataset TEXT PRIMARY KEY, version INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metadata (hash TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ingestions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, dataset TEXT NOT NULL,
    entered INTEGER NOT NULL DEFAULT 0, issued_at INTEGER NOT NULL, accepted_at INTEGER NOT NULL,
    digest TEXT NOT NULL, payload TEXT NOT NULL, quarantine TEXT, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    claims BLOB NOT NULL, replaces BLOB NOT NULL, max_future TEXT NOT NULL,
    counts BLOB NOT NULL, metadata TEXT NOT NULL, entry INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS replaced (id TEXT PRIMARY KEY, by TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shares (
    ingestion TEXT NOT NULL, window INTEGER NOT NULL, dataset TEXT NOT NULL, issued_at INTEGER NOT NULL,
    rows INTEGER NOT NULL, placement TEXT NOT NULL, entered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (ingestion, window)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members ON shares (dataset, window, issued_at, ingestion) WHERE entered;
CREATE TABLE IF NOT EXISTS coverage (
    dataset TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (dataset, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    dataset TEXT NOT NULL, start INTEGER NOT NULL, span TEXT NOT NULL,
    desired INTEGER NOT NULL DEFAULT 0, built INTEGER NOT NULL DEFAULT 0, rows INTEGER NOT NULL DEFAULT 0,
    due INTEGER, not_before INTEGER NOT NULL DEFAULT 0, built_at INTEGER,
    token TEXT, holder TEXT, expires INTEGER, failures INTEGER NOT NULL DEFAULT 0, parked TEXT,
    number INTEGER NOT NULL DEFAULT 0, revision BLOB,
    PRIMARY KEY (dataset, start)
);
CREATE INDEX IF NOT EXISTS windows_due ON windows (due, dataset, start) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS windows_leased ON windows (expires) WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS windows_pending ON windows (dataset, start) WHERE desired <> built;
CREATE INDEX IF NOT EXISTS windows_parked ON windows (dataset) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS revisions (
    place INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL, window INTEGER NOT NULL,
    number INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (dataset, window, number)
);
CREATE INDEX IF NOT EXISTS revisions_latest ON revisions (dataset, place);
CREATE TABLE IF NOT EXISTS nodes (session TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, record BLOB NOT NULL, messages BLOB NOT NULL
);

"""
