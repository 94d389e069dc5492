//! The control core: configuration, the IP stack of our own addresses, IKE, and what operators see.
