package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
)

const nobody = 65534

func TestFilesOfTheHostAreSeenAtTheirPaths(t *testing.T) {
	r := openSolver(t)
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	write(t, filepath.Join(real, "in"), "hello")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	err := r.Run(t.Context(), run.Command{Name: "cp", Args: []string{"in", link + "/out"}, Dir: real})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(real, "out")); got != "hello" {
		t.Errorf("the tool wrote %q, want %q", got, "hello")
	}
}

// TestFoldersNamedByTheCaller has the folder for temporary files elsewhere, so that only With shows the test's folders.
func TestFoldersNamedByTheCaller(t *testing.T) {
	dir, temporary := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	r := openSolver(t)
	write(t, filepath.Join(dir, "real", "file"), "hello")
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "link", "file")
	if err := r.Run(t.Context(), run.Command{Name: "cat", Args: []string{file}, Dir: "/"}); err == nil {
		t.Errorf("a folder that nobody named is seen inside")
	}
	if got := output(t, r.With(filepath.Join(dir, "link")), "cat", file); got != "hello" {
		t.Errorf("cat printed %q, want %q", got, "hello")
	}
}

// TestFoldersAmongTheToolRootsOwn shows a folder where the tool root has folders of its own but not that one.
func TestFoldersAmongTheToolRootsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes a folder in /usr/src")
	}
	dir, err := os.MkdirTemp("/usr/src", "allot-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write(t, filepath.Join(dir, "file"), "hello")
	if got := output(t, openSolver(t).With(dir), "cat", filepath.Join(dir, "file")); got != "hello" {
		t.Errorf("cat printed %q, want %q", got, "hello")
	}
}

func TestHostFoldersOverTheToolsAreRefused(t *testing.T) {
	r := openSolver(t)
	for _, path := range []string{"/", "/usr", "/etc", "/usr/bin", "/lib/modules"} {
		err := r.With(path).Run(t.Context(), run.Command{Name: "true"})
		if err == nil || !strings.Contains(err.Error(), "the tools are there") {
			t.Errorf("With(%q): error %v, want that the tools are there", path, err)
		}
	}
	for _, dir := range []string{"/", "/usr", "/proc"} {
		if err := r.Run(t.Context(), run.Command{Name: "true", Dir: dir}); err != nil {
			t.Errorf("working folder %q: %v", dir, err)
		}
	}
}

func TestToolRootIsReadOnly(t *testing.T) {
	r := openSolver(t)
	for _, path := range []string{"/usr/new", "/etc/new", "/var/lib/new"} {
		err := r.Run(t.Context(), run.Command{Name: "touch", Args: []string{path}})
		if err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("touch %s: error %v, want that the file system is read-only", path, err)
		}
	}
	for _, path := range []string{"/run/new", "/tmp/new", "/var/tmp/new", "/dev/shm/new"} {
		output(t, r, "touch", path)
	}
}

func TestFailuresAreTold(t *testing.T) {
	r := openSolver(t)
	for _, c := range []struct {
		command run.Command
		want    string
	}{
		{run.Command{Name: "sh", Args: []string{"-c", "echo why >&2; exit 3"}}, "cannot run sh: exit status 3\n  why"},
		{run.Command{Name: "no-such-tool"}, `cannot find "no-such-tool" in the tool root`},
		{run.Command{Name: "sh", Args: []string{"-c", "kill -9 $$"}}, "exit status 137"},
	} {
		err := r.Run(t.Context(), c.command)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %q", c.command.Name, c.command.Args, err, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"PATH": "/opt/bin", "LD_LIBRARY_PATH": "/opt/lib", "LANG": "de_DE", "TZ": "Europe/Berlin", "SOURCE_DATE_EPOCH": "1",
	} {
		t.Setenv(name, value)
	}
	defer unix.Umask(unix.Umask(0o077))
	if got := output(t, openSolver(t), "sh", "-c", "umask"); got != "0022" {
		t.Errorf("umask inside is %s, want 0022", got)
	}
	var out bytes.Buffer
	err := openSolver(t).Run(t.Context(), run.Command{Name: "env", Stdout: &out, Env: []string{"A=b"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "PATH=/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/root\nLC_ALL=C.UTF-8\nTZ=UTC\n" +
		"PYTHONDONTWRITEBYTECODE=1\nTMPDIR=" + os.TempDir() + "\nA=b\n"
	if out.String() != want {
		t.Errorf("environment inside:\n%swant:\n%s", out.String(), want)
	}
}

func TestExtraFilesArrive(t *testing.T) {
	cmd := openSolver(t).Command(t.Context(), "cat", "/dev/fd/4")
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "hello")
	for range 2 {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "hello" {
		t.Errorf("cat printed %q, error %v; want %q", out, err, "hello")
	}
}

// TestCancelKillsEverything starts a program that leaves its session, and holds a pipe open that all of them have: its
// end is the event that the last of them is gone.
func TestCancelKillsEverything(t *testing.T) {
	before := read(t, "/proc/self/mountinfo")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := openRoot(t).Command(ctx, "sh", "-c", escapee)
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	awaitLine(t, r, "escaped\n")
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("a program that was stopped succeeded")
	}
	awaitEnd(t, r)
	if after := read(t, "/proc/self/mountinfo"); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
}

// escapee writes a line to descriptor 3 from a process in a session of its own, and both wait.
const escapee = `setsid sh -c 'echo escaped >&3; sleep 1000' & sleep 1000`

// TestSignalsAreHandedOn stops a program in the way that lets it clean up.
func TestSignalsAreHandedOn(t *testing.T) {
	cmd := openSolver(t).Command(t.Context(), "sh", "-c", `trap 'exit 7' TERM; echo ready; while :; do :; done`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	awaitLine(t, r, "ready\n")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("exit status %d, want 7", got)
	}
}

// TestDeathOfTheCallerKillsEverything kills a helper process that runs a tool.
func TestDeathOfTheCallerKillsEverything(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	openRoot(t)
	h := helper(t, "start-escapee", string(cacheDir(t)))
	h.ExtraFiles = []*os.File{w}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	awaitLine(t, r, "escaped\n")
	h.Process.Kill()
	h.Wait()
	awaitEnd(t, r)
}

func awaitLine(t *testing.T, r *os.File, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, error %v; want %q", b, err, want)
	}
}

func awaitEnd(t *testing.T, r *os.File) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Fatalf("read %q, error %v; want nothing more", b, err)
	}
}

// TestOnRestrictedHosts runs a helper process that is not root, or in a container, or on a host that forbids user
// namespaces, and has it open the root and run tools.
func TestOnRestrictedHosts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	c := sharedCache(t)
	ordinary := &syscall.Credential{Uid: nobody, Gid: nobody}
	whole := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1 << 16}}
	for _, test := range []struct {
		name   string
		attr   syscall.SysProcAttr
		helper string
		want   string
	}{
		{"an ordinary user", syscall.SysProcAttr{Credential: ordinary}, "use", "user namespace, process namespace: uid 0"},
		{"root", syscall.SysProcAttr{}, "use", "process namespace: uid 0"},
		{"root that may not mount", syscall.SysProcAttr{}, "use-without-sys-admin",
			"user namespace, process namespace: uid 0"},
		{"root that may not mount, and /proc partly hidden", syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS},
			"use-with-proc-hidden", "user namespace: uid 0"},
		{"no user namespaces", syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, UidMappings: whole, GidMappings: whole, GidMappingsEnableSetgroups: true,
		}, "use-without-user-namespaces", "sudo sysctl -w user.max_user_namespaces=15000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := helper(t, test.helper, string(c))
			h.SysProcAttr = &test.attr
			out, err := h.CombinedOutput()
			if !strings.Contains(string(out), test.want) {
				t.Errorf("printed %q, error %v; want %q", out, err, test.want)
			}
		})
	}
}

func TestUnprivileged(t *testing.T) {
	const lines = "cat /proc/self/uid_map | wc -l; awk '{ print $3 }' /proc/self/uid_map"
	r, err := openRoot(t).Unprivileged(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, r, "sh", "-c", lines); got != "1\n1" {
		t.Errorf("the map of users has lines and users %q, want one user only", got)
	}
}

func TestRemedyNamesTheSetting(t *testing.T) {
	for file, value := range map[string]string{
		"kernel/apparmor_restrict_unprivileged_userns": "1",
		"kernel/unprivileged_userns_clone":             "0",
		"user/max_user_namespaces":                     "0",
	} {
		got := remedy(fstest.MapFS{file: {Data: []byte(value + "\n")}})
		if want := "sudo sysctl -w " + strings.ReplaceAll(file, "/", ".") + "="; !strings.Contains(got, want) {
			t.Errorf("remedy for %s=%s is %q, want %q in it", file, value, got, want)
		}
	}
	if got := remedy(fstest.MapFS{}); !strings.Contains(got, "--privileged") {
		t.Errorf("remedy where no setting forbids it is %q, want a word on containers", got)
	}
}

// helper prepares this test program as another process, for runHelper.
func helper(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = append([]string{helperMarker}, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	return cmd
}

const helperMarker = "tools-test-helper"

// runHelper is what this program does as a helper process.
func runHelper(job, c string) error {
	switch job {
	case "use":
		return useSolver(cache.Dir(c))
	case "start-escapee":
		root, err := Open(context.Background(), cache.Dir(c), nil, progress.Silent{})
		if err != nil {
			return err
		}
		cmd := root.Command(context.Background(), "sh", "-c", escapee)
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "pipe")}
		return cmd.Run()
	case "use-without-sys-admin":
		return again(nil, "use", c)
	case "use-with-proc-hidden":
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("hidden", "/proc/sys", "tmpfs", 0, ""); err != nil {
			return err
		}
		return again(nil, "use", c)
	case "use-without-user-namespaces":
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			return err
		}
		return again(&syscall.Credential{Uid: nobody, Gid: nobody}, "use", c)
	}
	return errors.New("no such job")
}

// again starts this program as a helper with fewer rights: those of another user, or those of root without mounting.
func again(who *syscall.Credential, args ...string) error {
	if who == nil {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
			return err
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{helperMarker}, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	return cmd.Run()
}

// useSolver says which namespaces it needs and what its user is inside.
func useSolver(c cache.Dir) error {
	root, err := OpenSolver(context.Background(), c, nil, progress.Silent{})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := root.Run(context.Background(), run.Command{Name: "id", Args: []string{"-u"}, Stdout: &out}); err != nil {
		return err
	}
	var have []string
	if root.spaces.user {
		have = append(have, "user namespace")
	}
	if root.spaces.pid {
		have = append(have, "process namespace")
	}
	fmt.Printf("%s: uid %s", strings.Join(have, ", "), out.String())
	return nil
}

// sharedCache returns a copy of the cached solver root that other users can read.
func sharedCache(t *testing.T) cache.Dir {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "allot-test-") // the folders above t.TempDir are the user's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from := openSolver(t).Dir()
	if err := os.CopyFS(filepath.Join(dir, "tools", filepath.Base(from)), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return cache.Dir(dir)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
