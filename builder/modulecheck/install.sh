# Installs packages as Debian does, all maintainer scripts included, in ./root and writes what comes of it to ./tree.tar.
# The files ./below and ./above name package files in ./packages, one on a line: first those that scripts need to run at
# all, base-files before the others, then those of the module. It runs under fakeroot, which remembers the owners that
# scripts give, so that one user id is enough.
set -eu
root=$PWD/root

# The essential packages need each other to be installed, so they are first unpacked by hand.
while read -r p; do
    dpkg-deb --fsys-tarfile "packages/$p" | tar --extract --directory "$root" --keep-directory-symlink
done < below
mkdir -p "$root/.packages" "$root/var/lib/dpkg"
: > "$root/var/lib/dpkg/status"
mount --bind packages "$root/.packages"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"

# Every program loads fakeroot's library, below the new root too.
library=$(echo /usr/lib/*/libfakeroot)
mkdir -p "$root$library"
cp "$library"/* "$root$library/"

# No daemon starts.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
for list in below above; do
    sed 's,^,/.packages/,' $list |
        xargs --no-run-if-empty chroot "$root" dpkg --force-depends --force-confold --force-unsafe-io --install
done

umount --recursive "$root/proc"
umount --recursive "$root/dev"
umount "$root/.packages"
rm -r "$root/.packages" "$root$library" "$root/usr/sbin/policy-rc.d"
tar --create --file tree.tar --directory "$root" --format=pax --numeric-owner --sort=name --one-file-system .
rm -r --one-file-system "$root" packages
