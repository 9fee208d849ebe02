package vm

import (
	"path/filepath"
	"runtime"

	"allotment/builder/tools"
	"allotment/image"
)

// withFolders is the tool root with the folders of all files of the machine in it.
func withFolders(o Options) *tools.Root {
	folders := []string{o.Dir}
	for _, file := range append([]string{o.Disk, o.Vars, o.Kernel, o.Initrd, o.LogWrites}, o.Sticks...) {
		if file != "" {
			folders = append(folders, filepath.Dir(file))
		}
	}
	return o.Tools.With(folders...)
}

// hostPath is where a file of the tool root, named by its path inside, lies on the host. That path is good inside too.
func hostPath(root *tools.Root, inside string) string { return filepath.Join(root.Dir(), inside) }

// outside are the words that start QEMU from the tool root without entering it: by the root's own dynamic loader, with the
// root's firmware.
func outside(root *tools.Root, name string) []string {
	lib, loader := "/usr/lib/"+image.Arch(runtime.GOARCH).Triplet(), "ld-linux-x86-64.so.2"
	if runtime.GOARCH == string(image.ARM64) {
		loader = "ld-linux-aarch64.so.1"
	}
	return []string{
		hostPath(root, lib+"/"+loader), "--library-path", hostPath(root, lib), hostPath(root, "/usr/bin/"+name),
		"-L", hostPath(root, "/usr/share/qemu"), "-L", hostPath(root, "/usr/share/seabios"),
	}
}
