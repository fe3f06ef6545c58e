//! The web UI. Its sources are in `/web`; what was built of them is in the binary.
//!
//! In: requests for pages and files on the query port. Out: one document for every page, and the files that it names.
//!
//! ```text
//! /, /traces, /trace/{id}, ...  ─▶ the document, with a base that fits the path it is behind
//! /assets/NAME-HASH.js          ─▶ compressed bytes as they lie in the binary, valid for ever
//! ```
//!
//! Invariants: nothing is loaded from anywhere else and no script or style stands in the document (Content-Security-Policy);
//! nothing here changes anything. What the pages show they ask of the query API; the room knows nothing of it.

mod assets;
mod document;

use axum::Router;
use axum::routing::get;

/// The UI's pages and files, to be merged with the query API's routes.
pub fn routes() -> Router {
    let pages = document::PAGES.iter().fold(Router::new(), |router, page| router.route(page, get(document::serve)));
    pages
        .route("/icon.svg", get(assets::icon))
        .route("/favicon.ico", get(assets::icon))
        .route("/assets/{name}", get(assets::serve))
        .with_state(document::Document::embedded())
}

#[cfg(test)]
mod tests;
