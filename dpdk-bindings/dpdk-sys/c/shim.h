/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What Rust cannot take from DPDK's headers, as plain functions and plain structs: static inlines, macro
 * constants, bit-fields, the thread-local rte_errno, and structs whose layout moves between releases.
 *
 * Rules of this file: no DPDK struct appears by value; every fallible function returns 0 (or a count) on
 * success and a negative errno on failure, so that Rust never has to ask rte_errno.
 */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;
struct rte_ring;

/* Offsets into struct rte_mbuf that Rust reads and writes directly. shim.c asserts every one of them against
 * the installed headers, so a release that moves a field fails to build instead of corrupting packets. */
#define SHIM_MBUF_BUF_ADDR 0
#define SHIM_MBUF_DATA_OFF 16
#define SHIM_MBUF_REFCNT 18
#define SHIM_MBUF_NB_SEGS 20
#define SHIM_MBUF_PORT 22
#define SHIM_MBUF_OL_FLAGS 24
#define SHIM_MBUF_PKT_LEN 36
#define SHIM_MBUF_DATA_LEN 40
#define SHIM_MBUF_BUF_LEN 54
#define SHIM_MBUF_POOL 56
#define SHIM_MBUF_NEXT 64
#define SHIM_MBUF_TX_OFFLOAD 72
#define SHIM_MBUF_SIZE 128

/* Room that DPDK leaves before the data of a fresh mbuf, in bytes. */
#define SHIM_HEADROOM_BYTES 128

/* Ports that one process can have. */
#define SHIM_MAX_PORTS 32

/* Longest thread name without its terminator. */
#define SHIM_THREAD_NAME_BYTES 15

#define SHIM_DRIVER_NAME_BYTES 32
#define SHIM_PORT_NAME_BYTES 64

struct shim_port_info {
	char driver[SHIM_DRIVER_NAME_BYTES];
	int32_t numa_node; /* -1: not tied to a node */
	uint32_t if_index; /* kernel interface, 0: none */
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint64_t rss_offered; /* bit mask of hash fields, 0: none */
	uint8_t rx_ipv4_checksum;
	uint8_t rx_l4_checksum;
	uint8_t tx_ipv4_checksum;
	uint8_t tx_udp_checksum;
	uint8_t tx_tcp_checksum;
	uint8_t reserved[3];
};

struct shim_port_config {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t rx_descriptors; /* in: wanted; out: what the device rounds it to */
	uint16_t tx_descriptors;
	uint16_t mtu; /* 0: as the device has it */
	uint8_t rss;  /* hash over addresses and ports, as far as offered */
	uint8_t reserved;
	uint32_t speed_mbps; /* 0: negotiate */
	uint32_t reserved2;
	uint64_t rss_active; /* out: the hash fields in use, 0: none */
};

struct shim_link {
	uint32_t speed_mbps; /* UINT32_MAX: unknown */
	uint8_t up;
	uint8_t full_duplex;
	uint8_t reserved[2];
};

struct shim_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;
};

/* Environment. */
int shim_eal_init(int argc, char **argv);
int shim_errno(void);
unsigned int shim_lcore_id(void);
uint64_t shim_tsc(void);
int shim_thread_register(void);
int shim_thread_set_name(const char *name);
int shim_thread_get_name(char *name, size_t size);

/* Mempools and mbufs. */
struct rte_mempool *shim_pool_create(const char *name, uint32_t size, uint32_t cache, uint16_t data_room,
				     int numa_node, int *error);
int shim_pool_dry(struct rte_mempool *pool);
struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool);
int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void shim_mbuf_free(struct rte_mbuf *mbuf);
void shim_mbuf_reset(struct rte_mbuf *mbuf);

/* Ports. */
int shim_port_by_name(const char *name, uint16_t *port);
int shim_port_info(uint16_t port, struct shim_port_info *info);
int shim_port_configure(uint16_t port, struct shim_port_config *config);
int shim_port_mtu(uint16_t port, uint16_t *mtu);
int shim_port_mac(uint16_t port, uint8_t mac[6]);
int shim_port_link(uint16_t port, struct shim_link *link);
int shim_port_stats(uint16_t port, struct shim_stats *stats);
int shim_port_close(uint16_t port);
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count, uint64_t *scattered);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

/* Rings with one producer and one consumer. */
struct rte_ring *shim_ring_create(const char *name, unsigned int capacity, int numa_node, int *error);
unsigned int shim_ring_enqueue(struct rte_ring *ring, void *const *objects, unsigned int count);
unsigned int shim_ring_dequeue(struct rte_ring *ring, void **objects, unsigned int count);
unsigned int shim_ring_count(const struct rte_ring *ring);

#endif
