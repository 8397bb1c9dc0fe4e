//! The overlay's part of a sheet: tables, providers, connections, the index.
//!
//! Owns: its headings, labels and keys. Must not: set or print anything.

use simnet_host::state::{Known, NetworkState, PlaceState, TableState};

use super::super::sheet::{Cell, Column, Sheet};

const TABLES: &[Column] = &[
    ("model", "model"),
    ("minimum_tier", "from tier"),
    ("warm", "warm"),
    ("on_the_way", "on the way"),
    ("candidates", "candidates"),
    ("looking", "looking"),
    ("look_up_at_s", "looks again at"),
];

const KNOWN: &[Column] = &[
    ("provider", "provider"),
    ("warm", "warm"),
    ("tables", "tables"),
    ("round_trip_s", "round trip"),
    ("since_s", "since"),
];

const CONNECTIONS: &[Column] = &[("peer", "peer"), ("dialled", "dialled by it")];

/// All of it.
pub(super) fn show(sheet: &mut Sheet, it: &PlaceState) {
    let fields = vec![
        ("subscribers", "subscribers of its offer", Cell::maybe(it.subscribers, Cell::count)),
        ("sessions", "sessions and dials", Cell::count(it.sessions)),
        ("put_off", "providers put off", Cell::count(it.put_off)),
    ];
    sheet.fields("overlay", "overlay", fields);
    let tables = it.tables.iter().map(table).collect();
    sheet.table("overlay.tables", "overlay: warm tables", TABLES, tables);
    let known = it.known.iter().map(provider).collect();
    let title = "overlay: providers in them or on the way";
    sheet.table("overlay.providers", title, KNOWN, known);
    match &it.network {
        Some(network) => connected(sheet, network),
        None => {
            sheet.absent("overlay.network");
            sheet.absent("overlay.connections");
        }
    }
}

fn table(it: &TableState) -> Vec<Cell> {
    vec![
        Cell::text(&it.model),
        Cell::text(it.minimum_tier),
        Cell::count(it.warm),
        Cell::count(it.on_the_way),
        Cell::count(it.candidates),
        Cell::Flag(it.looking),
        Cell::maybe(it.look_up_at, Cell::At),
    ]
}

fn provider(it: &Known) -> Vec<Cell> {
    vec![
        Cell::Node(it.provider),
        Cell::Flag(it.warm),
        Cell::count(it.tables),
        Cell::maybe(it.round_trip, Cell::Long),
        Cell::At(it.since),
    ]
}

fn connected(sheet: &mut Sheet, it: &NetworkState) {
    let refused: Vec<_> = it.refused.iter().map(|(what, it)| format!("{what} {it}")).collect();
    let refused = (!refused.is_empty()).then(|| refused.join(", "));
    let (connected, entries) = it.entry_points;
    let fields = vec![
        ("listeners", "listens at", Cell::Text(it.listeners.join(", "))),
        ("serves_index", "keeps a share of the index", Cell::Flag(it.serves_index)),
        ("index_records", "records that it keeps", Cell::count(it.index_records)),
        ("index_peers", "index nodes that it knows", Cell::count(it.index_peers)),
        ("look_ups", "look-ups under way", Cell::count(it.look_ups)),
        ("entry_points", "entry points", Cell::count(entries)),
        ("entry_points_connected", "of them connected", Cell::count(connected)),
        ("refused", "refused to peers so far", Cell::maybe(refused, Cell::Text)),
    ];
    sheet.fields("overlay.network", "overlay: the network", fields);
    let connections = it.connections.iter();
    let connections = connections.map(|it| vec![Cell::Node(it.peer), Cell::Flag(it.dialled)]);
    sheet.table("overlay.connections", "overlay: connections", CONNECTIONS, connections.collect());
}
