# shellcheck shell=bash
# Everything, in the order in which one thing needs another.
# shellcheck source=common.sh
. "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source=edit.sh
. "$PHALANX_LIB/edit.sh"
# shellcheck source=install.sh
. "$PHALANX_LIB/install.sh"
# shellcheck source=promtool.sh
. "$PHALANX_LIB/promtool.sh"
# shellcheck source=chroot.sh
. "$PHALANX_LIB/chroot.sh"
# shellcheck source=node.sh
. "$PHALANX_LIB/node.sh"
# shellcheck source=net.sh
. "$PHALANX_LIB/net.sh"
# shellcheck source=cluster-net.sh
. "$PHALANX_LIB/cluster-net.sh"
# shellcheck source=peer.sh
. "$PHALANX_LIB/peer.sh"
# shellcheck source=appliance.sh
. "$PHALANX_LIB/appliance.sh"
# shellcheck source=capture.sh
. "$PHALANX_LIB/capture.sh"
# shellcheck source=counters.sh
. "$PHALANX_LIB/counters.sh"
# shellcheck source=report.sh
. "$PHALANX_LIB/report.sh"
# shellcheck source=one.sh
. "$PHALANX_LIB/one.sh"
# shellcheck source=cluster-members.sh
. "$PHALANX_LIB/cluster-members.sh"
# shellcheck source=cluster.sh
. "$PHALANX_LIB/cluster.sh"
