/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_config.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

#include "shim.h"

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "DPDK 22.11 or newer is needed"
#endif

#define ASSERT_OFFSET(field, offset) \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), "rte_mbuf." #field " has moved")

ASSERT_OFFSET(buf_addr, SHIM_MBUF_BUF_ADDR);
ASSERT_OFFSET(data_off, SHIM_MBUF_DATA_OFF);
ASSERT_OFFSET(refcnt, SHIM_MBUF_REFCNT);
ASSERT_OFFSET(nb_segs, SHIM_MBUF_NB_SEGS);
ASSERT_OFFSET(port, SHIM_MBUF_PORT);
ASSERT_OFFSET(ol_flags, SHIM_MBUF_OL_FLAGS);
ASSERT_OFFSET(pkt_len, SHIM_MBUF_PKT_LEN);
ASSERT_OFFSET(data_len, SHIM_MBUF_DATA_LEN);
ASSERT_OFFSET(buf_len, SHIM_MBUF_BUF_LEN);
ASSERT_OFFSET(pool, SHIM_MBUF_POOL);
ASSERT_OFFSET(next, SHIM_MBUF_NEXT);
ASSERT_OFFSET(tx_offload, SHIM_MBUF_TX_OFFLOAD);
_Static_assert(sizeof(struct rte_mbuf) == SHIM_MBUF_SIZE, "rte_mbuf has grown");
_Static_assert(RTE_PKTMBUF_HEADROOM == SHIM_HEADROOM_BYTES, "the headroom is not the usual one");
_Static_assert(RTE_MAX_ETHPORTS >= SHIM_MAX_PORTS, "fewer ports than expected");

/* ---- environment ---- */

/* rte_eal_init() pins its caller to the main lcore's CPU. A thread that the application starts later would inherit
 * that mask and starve there, so the caller gets its own mask back. */
int shim_eal_init(int argc, char **argv)
{
	cpu_set_t before;
	int saved = pthread_getaffinity_np(pthread_self(), sizeof(before), &before);
	int parsed = rte_eal_init(argc, argv);
	int error = rte_errno;

	if (saved == 0)
		pthread_setaffinity_np(pthread_self(), sizeof(before), &before);
	if (parsed >= 0)
		return 0;
	return error > 0 ? -error : -EINVAL;
}

int shim_errno(void)
{
	return rte_errno;
}

unsigned int shim_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t shim_tsc(void)
{
	return rte_rdtsc();
}

int shim_thread_register(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return -EEXIST;
	if (rte_thread_register() == 0)
		return 0;
	return rte_errno > 0 ? -rte_errno : -EINVAL;
}

int shim_thread_set_name(const char *name)
{
	return -pthread_setname_np(pthread_self(), name);
}

int shim_thread_get_name(char *name, size_t size)
{
	return -pthread_getname_np(pthread_self(), name, size);
}

/* ---- mempools and mbufs ---- */

/* By its own name for the handler: an argument of the environment could make the default one for a single thread. */
struct rte_mempool *shim_pool_create(const char *name, uint32_t size, uint32_t cache, uint16_t data_room,
				     int numa_node, int *error)
{
	struct rte_mempool *pool = rte_pktmbuf_pool_create_by_ops(name, size, cache, 0, data_room, numa_node,
								  "ring_mp_mc");

	*error = pool == NULL ? -(rte_errno > 0 ? rte_errno : ENOMEM) : 0;
	return pool;
}

/* Whether this thread would get no buffer now. Nothing is taken, and the shared ring is looked at only by a thread
 * whose own cache is empty. */
int shim_pool_dry(struct rte_mempool *pool)
{
	struct rte_mempool_cache *cache = rte_mempool_default_cache(pool, rte_lcore_id());

	if (cache != NULL && cache->len > 0)
		return 0;
	return rte_mempool_get_ops(pool->ops_index)->get_count(pool) == 0;
}

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void shim_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

void shim_mbuf_reset(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_reset(mbuf);
}

/* ---- ports ---- */

int shim_port_by_name(const char *name, uint16_t *port)
{
	return rte_eth_dev_get_port_by_name(name, port);
}

int shim_port_info(uint16_t port, struct shim_port_info *info)
{
	const uint64_t l4 = RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	struct rte_eth_dev_info device;
	int result = rte_eth_dev_info_get(port, &device);

	if (result != 0)
		return result;
	memset(info, 0, sizeof(*info));
	if (device.driver_name != NULL)
		strncpy(info->driver, device.driver_name, sizeof(info->driver) - 1);
	info->numa_node = rte_eth_dev_socket_id(port);
	info->if_index = device.if_index;
	info->max_rx_queues = device.max_rx_queues;
	info->max_tx_queues = device.max_tx_queues;
	info->min_mtu = device.min_mtu;
	info->max_mtu = device.max_mtu;
	info->rss_offered = device.flow_type_rss_offloads;
	info->rx_ipv4_checksum = (device.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0;
	info->rx_l4_checksum = (device.rx_offload_capa & l4) == l4;
	info->tx_ipv4_checksum = (device.tx_offload_capa & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
	info->tx_udp_checksum = (device.tx_offload_capa & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0;
	info->tx_tcp_checksum = (device.tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0;
	return 0;
}

int shim_port_configure(uint16_t port, struct shim_port_config *config)
{
	struct rte_eth_dev_info device;
	struct rte_eth_conf conf;
	int result = rte_eth_dev_info_get(port, &device);

	if (result != 0)
		return result;
	memset(&conf, 0, sizeof(conf));
	config->rss_active = 0;
	if (config->mtu != 0)
		conf.rxmode.mtu = config->mtu;
	if (config->rss && config->rx_queues > 1) {
		config->rss_active = device.flow_type_rss_offloads &
				     (RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_ESP);
		if (config->rss_active != 0) {
			conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
			conf.rx_adv_conf.rss_conf.rss_hf = config->rss_active;
		}
	}
	if (config->speed_mbps != 0) {
		conf.link_speeds = rte_eth_speed_bitflag(config->speed_mbps, RTE_ETH_LINK_FULL_DUPLEX);
		if (conf.link_speeds == 0)
			return -EINVAL;
		conf.link_speeds |= RTE_ETH_LINK_SPEED_FIXED;
	}
	result = rte_eth_dev_configure(port, config->rx_queues, config->tx_queues, &conf);
	if (result != 0)
		return result;
	result = rte_eth_dev_adjust_nb_rx_tx_desc(port, &config->rx_descriptors, &config->tx_descriptors);
	if (result != 0)
		return result;
	if (config->mtu == 0)
		return 0;
	/* Some drivers take the MTU only by this call, others know only the field above. */
	result = rte_eth_dev_set_mtu(port, config->mtu);
	return result == -ENOTSUP ? 0 : result;
}

int shim_port_mtu(uint16_t port, uint16_t *mtu)
{
	return rte_eth_dev_get_mtu(port, mtu);
}

int shim_port_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr address;
	int result = rte_eth_macaddr_get(port, &address);

	if (result == 0)
		memcpy(mac, address.addr_bytes, 6);
	return result;
}

/* Whether the kernel lets packets through its interface: 1 yes, 0 no, -1 it cannot say. */
static int kernel_link(unsigned int if_index)
{
	struct ifreq request;
	int running = -1;
	int s;

	memset(&request, 0, sizeof(request));
	if (if_indextoname(if_index, request.ifr_name) == NULL)
		return errno == ENXIO || errno == ENODEV ? 0 : -1;
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -1;
	if (ioctl(s, SIOCGIFFLAGS, &request) == 0)
		running = (request.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
	close(s);
	return running;
}

/* Drivers on top of a kernel interface (af_packet before 23.11) say "up" whatever happens to it, so the kernel is
 * asked too. */
int shim_port_link(uint16_t port, struct shim_link *link)
{
	struct rte_eth_dev_info device;
	struct rte_eth_link state;
	int result;

	memset(&state, 0, sizeof(state));
	result = rte_eth_link_get_nowait(port, &state);
	if (result != 0)
		return result;
	memset(link, 0, sizeof(*link));
	link->speed_mbps = state.link_speed;
	link->up = state.link_status == RTE_ETH_LINK_UP;
	if (link->up && rte_eth_dev_info_get(port, &device) == 0 && device.if_index != 0)
		link->up = kernel_link(device.if_index) != 0;
	link->full_duplex = state.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return 0;
}

int shim_port_stats(uint16_t port, struct shim_stats *stats)
{
	struct rte_eth_stats device;
	int result;

	memset(&device, 0, sizeof(device));
	result = rte_eth_stats_get(port, &device);
	if (result != 0)
		return result;
	stats->rx_packets = device.ipackets;
	stats->tx_packets = device.opackets;
	stats->rx_bytes = device.ibytes;
	stats->tx_bytes = device.obytes;
	stats->rx_missed = device.imissed;
	stats->rx_errors = device.ierrors;
	stats->tx_errors = device.oerrors;
	stats->rx_no_mbuf = device.rx_nombuf;
	return 0;
}

/* Stops and closes. A device whose last port this was is unplugged too, so that it can be attached anew. */
int shim_port_close(uint16_t port)
{
	struct rte_eth_dev_info device;
	int known = rte_eth_dev_info_get(port, &device) == 0;
	int stopped;
	int result;

	/* A kernel interface under the device would stay promiscuous after us. */
	if (rte_eth_promiscuous_get(port) == 1)
		rte_eth_promiscuous_disable(port);
	stopped = rte_eth_dev_stop(port);
	result = rte_eth_dev_close(port);
	if (result != 0)
		return result;
	if (known && device.device != NULL && rte_eth_find_next_of(0, device.device) >= RTE_MAX_ETHPORTS)
		result = rte_dev_remove(device.device);
	return result != 0 ? result : stopped;
}

/* Every mbuf that leaves here is one contiguous segment: what a device scattered is gathered, and what cannot be
 * gathered (no tailroom) is freed and counted. Devices scatter only packets larger than their buffers. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count, uint64_t *scattered)
{
	uint16_t received = rte_eth_rx_burst(port, queue, mbufs, count);
	uint16_t kept = 0;

	for (uint16_t i = 0; i < received; i++) {
		if (unlikely(mbufs[i]->nb_segs != 1) && rte_pktmbuf_linearize(mbufs[i]) != 0) {
			rte_pktmbuf_free(mbufs[i]);
			(*scattered)++;
			continue;
		}
		mbufs[kept++] = mbufs[i];
	}
	return kept;
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

/* ---- rings ---- */

struct rte_ring *shim_ring_create(const char *name, unsigned int capacity, int numa_node, int *error)
{
	struct rte_ring *ring =
		rte_ring_create(name, capacity, numa_node, RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);

	*error = ring == NULL ? -(rte_errno > 0 ? rte_errno : ENOMEM) : 0;
	return ring;
}

unsigned int shim_ring_enqueue(struct rte_ring *ring, void *const *objects, unsigned int count)
{
	return rte_ring_sp_enqueue_burst(ring, objects, count, NULL);
}

unsigned int shim_ring_dequeue(struct rte_ring *ring, void **objects, unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, objects, count, NULL);
}

unsigned int shim_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}
