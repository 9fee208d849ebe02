# usage: sh peer.sh DIR FILE-SYSTEM PACKAGE,... MIRROR SECURITY-MIRROR
#
# Builds what Allotment is measured against: a Debian 13 installed the usual way, scripts and all, with systemd and some
# packages, and the files in DIR/files on top of it. It boots by UEFI, systemd-boot and a UKI, as ours does. The file system is
# ext4 or btrfs. The result is DIR/peer.raw. It is kept lean (minbase, no recommended packages), so that the comparison does
# not flatter us.
set -eu
dir=$1 filesystem=$2 packages=$3 mirror=$4 security=$5
cd "$dir"

cat >80-ethernet.network <<-END
	[Match]
	Type=ether
	[Network]
	DHCP=yes
END

mmdebstrap --quiet --mode=root --format=directory --variant=minbase --architectures=amd64 \
	--include=linux-image-amd64,initramfs-tools,zstd,systemd-sysv,systemd-timesyncd,systemd-boot-efi,udev,dbus,$packages \
	--customize-hook='copy-in 80-ethernet.network /etc/systemd/network' \
	--customize-hook='sync-in files /' \
	--customize-hook='chroot "$1" systemctl --quiet enable systemd-networkd' \
	--customize-hook='echo peer >"$1/etc/hostname"; : >"$1/etc/machine-id"' \
	trixie root \
	"deb $mirror trixie main" "deb $mirror trixie-updates main" "deb $security trixie-security main"

# The console is as quiet as ours: printing through an emulated serial port costs time.
ukify build --linux="$(echo root/boot/vmlinuz-*)" --initrd="$(echo root/boot/initrd.img-*)" \
	--cmdline='root=PARTLABEL=root rw panic=5 no_timer_check loglevel=4 systemd.show_status=auto console=tty0 console=ttyS0,115200' \
	--os-release=@root/usr/lib/os-release --stub=root/usr/lib/systemd/boot/efi/linuxx64.efi.stub --output=peer.efi >ukify.log

# Sizes in MiB: the EFI system partition as large as it must be, the root with a third of its files' size to spare (btrfs keeps
# data and metadata apart, and needs more; what is empty there takes no room).
esp=$(($(du -m peer.efi | cut -f1) + 40))
root=$(($(du -sm root | cut -f1) * 4 / 3))
if [ "$filesystem" = btrfs ]; then root=4096; fi
truncate -s $((esp + root + 2))M peer.raw
sfdisk --quiet peer.raw <<-END
	label: gpt
	start=1MiB, size=${esp}MiB, type=U, name=esp
	start=$((esp + 1))MiB, size=${root}MiB, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, name=root
END
export MTOOLS_SKIP_CHECK=1
mformat -i peer.raw@@1M -F -T $((esp * 2048)) ::
mmd -i peer.raw@@1M ::EFI ::EFI/BOOT ::EFI/Linux
mcopy -i peer.raw@@1M root/usr/lib/systemd/boot/efi/systemd-bootx64.efi ::EFI/BOOT/BOOTX64.EFI
mcopy -i peer.raw@@1M peer.efi ::EFI/Linux/peer.efi
case $filesystem in
ext4) mke2fs -q -t ext4 -d root -E offset=$(((esp + 1) << 20)) peer.raw ${root}M ;;
btrfs)
	truncate -s ${root}M root.btrfs
	mkfs.btrfs --quiet --rootdir root root.btrfs
	dd if=root.btrfs of=peer.raw bs=1M seek=$((esp + 1)) conv=notrunc,sparse status=none
	rm root.btrfs
	;;
esac
rm -rf root
