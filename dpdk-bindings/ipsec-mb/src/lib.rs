//! A safe layer over Intel's multi-buffer crypto library, AES-GCM only.
