//! IPsec as RFC 4301 and RFC 4303 describe it: SAs, SAD, SPD, replay windows, ESP.
