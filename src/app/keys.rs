//! `graspd keys`: the keys of the service on this machine.

use std::{
    io::{self, Write},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use super::{AppError, runtime};
use crate::{
    cli::{
        self, SUCCEEDED,
        keys::{KeyRow, KeysCommand, USUAL_SCOPES},
    },
    clock::{Clock, Ids, RandomIds, SystemClock, UnixMillis},
    config::{self, StoreArgs},
    job::Scope,
    queue::{self, KEY_PREFIX, KeyHash, KeyRecord, KeyStore, NewKey, RetryPolicy, Store, StoreError},
};

/// To a PostgreSQL server.
const CONNECTIONS: u32 = 2;

/// Does what `graspd keys` was asked.
pub(super) fn keys(args: &StoreArgs, command: KeysCommand) -> Result<u8, AppError> {
    let (data_dir, database) = config::kept(args)?;
    std::fs::create_dir_all(&data_dir)?;
    runtime()?.block_on(async {
        let store = queue::open(&database, CONNECTIONS, RetryPolicy::default()).await?;
        let done = run(&*store, command).await;
        store.close().await;
        done
    })?;
    Ok(SUCCEEDED)
}

async fn run(store: &dyn Store, command: KeysCommand) -> Result<(), AppError> {
    match command {
        KeysCommand::Create { tenant, scopes, expires } => {
            let scopes = if scopes.is_empty() { USUAL_SCOPES.to_vec() } else { scopes };
            create(store, tenant, scopes, expires).await
        }
        KeysCommand::List => {
            let rows: Vec<_> = store.keys().await?.into_iter().map(row).collect();
            Ok(cli::print(&cli::keys::table(&rows))?)
        }
        KeysCommand::Revoke { id, after } => revoke(store, id, after).await,
        KeysCommand::Rotate { id, after } => {
            let old = store.key(&id).await?.ok_or_else(|| AppError::NoSuchKey(id.clone()))?;
            create(store, old.tenant, old.scopes, None).await?;
            revoke(store, id, after).await
        }
    }
}

/// The key alone goes to standard output, so that a script can take it from there.
async fn create(
    store: &dyn Store,
    tenant: String,
    scopes: Vec<Scope>,
    lifetime: Option<Duration>,
) -> Result<(), AppError> {
    let (key, record) = make(store, &RandomIds, tenant, scopes, lifetime).await?;
    writeln!(io::stderr(), "{} of tenant {}: this is shown once", record.id, record.tenant)?;
    Ok(cli::print(&format!("{key}\n"))?)
}

async fn make(
    store: &dyn KeyStore,
    ids: &dyn Ids,
    tenant: String,
    mut scopes: Vec<Scope>,
    lifetime: Option<Duration>,
) -> Result<(String, KeyRecord), StoreError> {
    scopes.sort_unstable();
    scopes.dedup();
    let key = format!("{KEY_PREFIX}{}", BASE64.encode(ids.secret()));
    let id: String = ids.request_id().simple().to_string().chars().take(12).collect();
    let new = NewKey { id: format!("key_{id}"), tenant, scopes, hash: KeyHash::of(&key), lifetime };
    Ok((key, store.add_key(&new).await?))
}

async fn revoke(store: &dyn Store, id: String, after: Duration) -> Result<(), AppError> {
    if store.revoke_key(&id, after).await? { Ok(()) } else { Err(AppError::NoSuchKey(id)) }
}

fn row(record: KeyRecord) -> KeyRow {
    let state = state(&record, SystemClock.now());
    KeyRow { id: record.id, tenant: record.tenant, scopes: record.scopes, state }
}

fn state(record: &KeyRecord, now: UnixMillis) -> String {
    match (record.revoked_at, record.expires_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= now => "expired".to_owned(),
        (None, Some(at)) => {
            let at = chrono::DateTime::from_timestamp_millis(at).map(|time| time.format("%Y-%m-%d %H:%M").to_string());
            format!("expires {} UTC", at.unwrap_or_default())
        }
        (None, None) => "valid".to_owned(),
    }
}
