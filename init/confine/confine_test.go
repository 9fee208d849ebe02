package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside tells a copy of the test which folder it is to be confined to; free tells it not to.
const (
	inside = "ALLOTMENT_TEST_FOLDER"
	free   = "ALLOTMENT_TEST_FREE"
	// missing is one more folder of data, which is not there
	missing = "ALLOTMENT_TEST_MISSING"
)

func TestMain(m *testing.M) {
	folder := os.Getenv(inside)
	if folder == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(free) == "" {
		data := []string{folder + "/data"}
		if m := os.Getenv(missing); m != "" {
			data = append(data, m)
		}
		if err := Self(folder, 32<<20, data...); err != nil {
			fmt.Println("confined:", err)
			os.Exit(0)
		}
	}
	try(folder)
	os.Exit(0)
}

// try prints what can be done, from a few threads.
func try(folder string) {
	attempts := []struct {
		name string
		do   func() error
	}{
		{"read", func() error { _, err := os.ReadFile(folder + "/config"); return err }},
		{"read elsewhere", func() error { _, err := os.ReadFile("/proc/self/cmdline"); return err }},
		{"write", func() error { return os.WriteFile(folder+"/config", []byte("x"), 0o644) }},
		{"make", func() error { return os.Mkdir(folder+"/new", 0o755) }},
		{"remove", func() error { return os.Remove(folder + "/new") }},
		{"keep data", func() error { return keep(folder + "/data") }},
		{"run", runItself},
		{"listen", bind},
	}
	for _, a := range attempts {
		var all [4]error
		var started, done sync.WaitGroup
		started.Add(len(all))
		for i := range all {
			done.Go(func() {
				runtime.LockOSThread()
				started.Done()
				started.Wait() // so that each has a thread of its own
				if i > 0 && (a.name == "make" || a.name == "remove" || a.name == "keep data") {
					return
				}
				all[i] = a.do()
			})
		}
		done.Wait()
		fmt.Printf("%s: %v\n", a.name, errors.Join(all[:]...) == nil)
	}
}

// keep does what a program does that keeps files: it makes a folder, and replaces a file there by rename.
func keep(data string) error {
	return errors.Join(os.MkdirAll(data+"/kept", 0o700), os.WriteFile(data+"/kept/new", []byte("x"), 0o600),
		os.Rename(data+"/kept/new", data+"/kept/file"), os.Remove(data+"/kept/file"), os.Remove(data+"/kept"))
}

// runItself runs this program so that it does nothing: without its environment it tries nothing, least of all this again.
func runItself() error {
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	c.Env = []string{"NOTHING="}
	return c.Run()
}

// bind takes a port without package net, which would bring cgo into the test: with it, no system call can be made in all
// threads. The device's programs are built without it.
func bind() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

// outcome runs a copy of the test in a folder that it owns, as a user that is not root.
func outcome(t *testing.T, uid int, env ...string) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "confine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := errors.Join(os.WriteFile(folder+"/config", nil, 0o644), os.Mkdir(folder+"/data", 0o755), os.Chown(folder, uid, -1),
		os.Chown(folder+"/config", uid, -1), os.Chown(folder+"/data", uid, -1)); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(env, inside+"="+folder)
	if uid != os.Getuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(bytes.TrimSpace(out))
}

func TestSelf(t *testing.T) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == unix.ENOTSUP {
		t.Skip("this test was built with cgo, as -race does")
	}
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
		if got := outcome(t, uid, missing+"=/no/such/folder"); got != "confined: cannot keep to what may be opened: stat /no/such/folder: no such file or directory" {
			t.Errorf("a missing folder: %s", got)
		}
		if got := outcome(t, 0); got != "confined: cannot run as root: this program needs a user of its own" {
			t.Errorf("root: %s", got)
		}
	}
	if got, want := outcome(t, uid), "read: true\nread elsewhere: false\nwrite: false\nmake: false\nremove: false\nkeep data: true\nrun: false\nlisten: false"; got != want {
		t.Errorf("confined:\n%s", got)
	}
	if got, want := outcome(t, uid, free+"=yes"), "read: true\nread elsewhere: true\nwrite: true\nmake: true\nremove: true\nkeep data: true\nrun: true\nlisten: true"; got != want {
		t.Errorf("the twin, free:\n%s", got)
	}
}
