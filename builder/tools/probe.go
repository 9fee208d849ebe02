package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// probe finds out which namespaces this host lets us have, by trying: first those with the fewest conditions for what
// runs inside.
func probe(ctx context.Context) (namespaces, error) {
	var failed error
	for _, n := range candidates(os.Geteuid() == 0) {
		err := try(ctx, n)
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		failed = err
	}
	return namespaces{}, fmt.Errorf("cannot enter the tool root: %w%s", failed, remedy(os.DirFS("/proc/sys")))
}

func candidates(root bool) []namespaces {
	n := []namespaces{{user: true, pid: true}, {user: true}}
	if root {
		n = append([]namespaces{{pid: true}, {}}, n...)
	}
	return n
}

// try starts this program in the namespaces and has it do all mounts but those of a tool root.
func try(ctx context.Context, n namespaces) error {
	spec, err := json.Marshal(entry{PID: n.pid})
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{marker, string(spec)}
	cmd.Dir = "/"
	cmd.Stderr = &said
	cmd.SysProcAttr = n.attributes()
	if err := cmd.Run(); err != nil {
		if said.Len() > 0 {
			return fmt.Errorf("%s", strings.TrimPrefix(strings.TrimSpace(said.String()), "cannot enter the tool root: "))
		}
		return err
	}
	return nil
}

// switches are the settings by which hosts keep ordinary users from making user namespaces.
var switches = []struct{ file, bad, good string }{
	{"user/max_user_namespaces", "0", "15000"},
	{"kernel/unprivileged_userns_clone", "0", "1"},             // Debian before 11
	{"kernel/apparmor_restrict_unprivileged_userns", "1", "0"}, // Ubuntu since 23.10
}

// remedy tells how to get user namespaces on the host whose settings (/proc/sys) are given.
func remedy(settings fs.FS) string {
	var lines []string
	for _, s := range switches {
		b, err := fs.ReadFile(settings, s.file)
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			name := strings.ReplaceAll(s.file, "/", ".")
			lines = append(lines, fmt.Sprintf("\n  %s is %s on this host, which keeps ordinary users from making user namespaces; "+
				"allow it with: sudo sysctl -w %s=%s", name, s.bad, name, s.good))
		}
	}
	if len(lines) == 0 {
		return "\n  the builder needs to be able to make user namespaces, or to be root with the right to mount; " +
			"in a container, start that with --privileged, or with --cap-add SYS_ADMIN " +
			"--security-opt seccomp=unconfined --security-opt apparmor=unconfined"
	}
	return strings.Join(lines, "")
}
