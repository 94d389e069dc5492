#!/usr/bin/env python3
"""Forges from captured ESP: the sequence number is raised, so that no window knows it, and one bit of the ciphertext is
flipped, behind the blocks that show the connection.

  alter-esp.py IN.pcap OUT.pcap RAISE

IN.pcap holds Ethernet frames with native ESP in IPv4, as tcpdump writes them."""
import struct
import sys

ETHERNET_LEN = 14
# SPI and sequence number, the IV, and what a peek may look at: inner IPv4 and TCP ports.
FLIPPED_AT = 8 + 8 + 40


def main():
    source, target, raised = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(source, "rb") as file:
        data = bytearray(file.read())
    order = {0xA1B2C3D4: "<", 0xD4C3B2A1: ">"}[struct.unpack_from("<I", data)[0]]
    at, count = 24, 0
    while at < len(data):
        length = struct.unpack_from(order + "I", data, at + 8)[0]
        esp = at + 16 + ETHERNET_LEN
        esp += (data[esp] & 15) * 4
        at += 16 + length
        number = struct.unpack_from(">I", data, esp + 4)[0]
        struct.pack_into(">I", data, esp + 4, (number + raised) & 0xFFFFFFFF)
        if esp + FLIPPED_AT + 16 >= at:
            sys.exit(f"alter-esp.py: packet {count + 1} of {source} is too short for a TCP header")
        data[esp + FLIPPED_AT] ^= 1
        count += 1
    with open(target, "wb") as file:
        file.write(data)


main()
