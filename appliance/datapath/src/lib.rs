//! The poll loops: from burst to burst, through RFC 4303, without a lock.
