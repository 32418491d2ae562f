//! The files of a model beside its configuration and weights.

/// Tokenizer, generation settings and licence texts: fetched from the hub, and copied byte for byte into checkpoints.
pub const COMPANIONS: [&str; 18] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENCE",
    "NOTICE",
    "NOTICE.txt",
    "Notice.txt",
    "USE_POLICY.md",
];

/// The model card, which says under what licence a model is. It is fetched, and read, but never copied.
pub const CARD: &str = "README.md";
