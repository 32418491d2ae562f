//! Who may ask the service for how much.

use std::num::NonZeroU32;

use super::{ConfigError, FrontArgs, value::Setting};
use crate::{
    http::{RateLimit, Settings, webhook},
    queue::QueueLimits,
};

const RATE: usize = 50;
const MOST: usize = u32::MAX as usize;
const LARGEST_DATASET: u64 = 256_000_000;
const DATASETS_OF_TENANT: u64 = 2_000_000_000;

/// The front of the service.
#[derive(Clone, Debug)]
pub struct Front {
    /// Limits of the API.
    pub api: Settings,
    /// Whether to listen beyond this machine without any key.
    pub allow_anonymous: bool,
    /// How webhooks are sent, where jobs may name one.
    pub webhooks: Option<webhook::Settings>,
}

impl Front {
    pub(super) fn read(args: &FrontArgs) -> Result<Self, ConfigError> {
        let webhooks = webhooks(args)?;
        let per_second = Setting::new("rate-limit", "GRASPD_RATE_LIMIT", args.rate_limit.as_ref());
        let service = Setting::new("queue-limit", "GRASPD_QUEUE_LIMIT", args.queue_limit.as_ref());
        let tenant = Setting::new("tenant-queue-limit", "GRASPD_TENANT_QUEUE_LIMIT", args.tenant_queue_limit.as_ref());
        let dataset = Setting::new("dataset-limit", "GRASPD_DATASET_LIMIT", args.dataset_limit.as_ref());
        let datasets =
            Setting::new("tenant-datasets-limit", "GRASPD_TENANT_DATASETS_LIMIT", args.tenant_datasets_limit.as_ref());
        Ok(Self {
            api: Settings {
                queue: QueueLimits {
                    service: service.count(10_000, MOST)? as u32,
                    tenant: tenant.count(1_000, MOST)? as u32,
                },
                rate: RateLimit { per_second: NonZeroU32::new(per_second.count_from(0, RATE, MOST)? as u32) },
                webhooks: webhooks.is_some(),
                largest_dataset: dataset.bytes(LARGEST_DATASET)?,
                datasets_of_tenant: datasets.bytes(DATASETS_OF_TENANT)?,
            },
            allow_anonymous: Setting::new("allow-anonymous", "GRASPD_ALLOW_ANONYMOUS", args.allow_anonymous.as_ref())
                .boolean()?,
            webhooks,
        })
    }
}

fn webhooks(args: &FrontArgs) -> Result<Option<webhook::Settings>, ConfigError> {
    let allowed = Setting::new("webhooks", "GRASPD_WEBHOOKS", args.webhooks.as_ref()).boolean()?;
    if !allowed {
        return Ok(None);
    }
    let secrets = Setting::new("webhook-secret", "GRASPD_WEBHOOK_SECRET", args.webhook_secret.as_ref()).secrets()?;
    Ok(Some(webhook::Settings { secrets, private_addresses: false }))
}
