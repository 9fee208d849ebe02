package trust_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
	"allotment/updater/trust/trusttest"
)

// release publishes a version in the channel stable.
func (w *world) release(version image.Version) {
	w.repo.AddRelease(trusttest.Release("garden", version), image.Wave{Hours: 1})
}

// offers wants the device to be offered a version.
func (w *world) offers(version image.Version) {
	w.Helper()
	if o := w.works(); o == nil || o.Release.Version != version {
		w.Fatalf("offers %+v, want %s", o, version)
	}
}

// remove deletes files of the device's folder.
func (w *world) remove(names ...string) {
	w.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
			w.Fatal(err)
		}
	}
}

// truncate leaves the beginning of files of the device's folder.
func (w *world) truncate(names ...string) {
	w.Helper()
	for _, name := range names {
		if err := os.Truncate(filepath.Join(w.dir, name), 20); err != nil {
			w.Fatal(err)
		}
	}
}

// Every role is refused when it is older than what was seen: with the cache, with damaged caches, and with the memory of what
// was seen alone. The twin, with neither, shows that the attack would work.
func TestRollback(t *testing.T) {
	attacks := map[string]func(w *world, old map[string][]byte){
		"everything": func(w *world, old map[string][]byte) { w.repo.Files = old },
		"timestamp": func(w *world, old map[string][]byte) {
			w.repo.Files["metadata/timestamp.json"] = old["metadata/timestamp.json"]
		},
		"snapshot": func(w *world, _ map[string][]byte) { // with a compromised timestamp key
			w.repo.Timestamp.Signed.Meta["snapshot.json"].Version = 2
			w.repo.Timestamp.Signed.Meta["snapshot.json"].Hashes = nil
			w.repo.Timestamp.Signed.Meta["snapshot.json"].Length = 0
			w.repo.PublishTimestamp()
		},
		"targets": func(w *world, _ map[string][]byte) { // with compromised snapshot and timestamp keys
			w.repo.Snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(1)
			w.repo.Publish()
		},
		"delegated": func(w *world, _ map[string][]byte) {
			w.repo.Snapshot.Signed.Meta["stable.json"] = metadata.MetaFile(2)
			w.repo.Publish()
		},
		"removed": func(w *world, _ map[string][]byte) {
			delete(w.repo.Snapshot.Signed.Meta, "stable.json")
			w.repo.Publish()
		},
	}
	cache := []string{"timestamp.json", "snapshot.json", "targets.json", "stable.json"}
	states := map[string]func(w *world){
		"cache and memory": func(*world) {},
		"memory":           func(w *world) { w.remove(cache...) },
		"cache":            func(w *world) { w.remove("seen") },
		"damaged cache":    func(w *world) { w.truncate(cache...) },
		"damaged memory":   func(w *world) { w.truncate("seen") },
	}
	for name, attack := range attacks {
		for state, damage := range states {
			t.Run(name+" with "+state, func(t *testing.T) {
				t.Parallel()
				w := oldAndNew(t)
				damage(w)
				attack(w, w.old)
				w.refuses()
			})
		}
		t.Run(name+" twin", func(t *testing.T) {
			w := oldAndNew(t)
			w.remove(append(cache, "seen")...)
			attack(w, w.old)
			if err := w.refresh(); err != nil {
				t.Errorf("the attack does not work on a device that has seen nothing: %v", err)
			}
		})
	}
}

// oldAndNew is a world in which the device has seen two releases, and old is what was published with the first.
func oldAndNew(t *testing.T) *world {
	w := newWorld(t)
	w.release("2026.11.1")
	w.offers("2026.11.1")
	w.old = maps.Clone(w.repo.Files)
	w.repo.PublishTargets(metadata.TARGETS)
	w.release("2026.11.2")
	w.release("2026.11.3")
	w.offers("2026.11.3")
	return w
}

// Whoever repeats what was good once can do so until it expires. (Freeze attack)
func TestFreeze(t *testing.T) {
	for role, expire := range map[string]func(w *world, when time.Time){
		"timestamp": func(w *world, when time.Time) { w.repo.Timestamp.Signed.Expires = when },
		"snapshot":  func(w *world, when time.Time) { w.repo.Snapshot.Signed.Expires = when },
		"targets": func(w *world, when time.Time) {
			w.repo.Targets["targets"].Signed.Expires = when
			w.repo.PublishTargets("targets")
		},
		"root": func(w *world, when time.Time) { w.repo.Root.Signed.Expires = when; w.repo.PublishRoot() },
	} {
		t.Run(role, func(t *testing.T) {
			w := newWorld(t)
			expire(w, start.Add(time.Hour))
			w.release("2026.11.1")
			w.now = start.Add(time.Hour - time.Second)
			w.offers("2026.11.1")
			w.now = start.Add(time.Hour)
			w.refuses(role, "expired")
			expire(w, start.Add(24*time.Hour))
			w.release("2026.11.2")
			w.offers("2026.11.2")
		})
	}
	w := newWorld(t)
	w.repo.Targets["stable"].Signed.Expires = start.Add(time.Hour)
	w.release("2026.11.1")
	w.now = start.Add(time.Hour)
	c := w.client()
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Offer(context.Background(), "stable", "garden", image.AMD64); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("offers from an expired role: %v", err)
	}
}

// A wild clock: in 2050 all has expired, nothing is spoilt by that, and all is well when the clock is; in 1970 what was seen
// last says that it is later.
func TestWildClock(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.now = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
	w.refuses("expired")
	w.now = start
	w.offers("2026.11.1")
	w.now = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
	w.refuses("expired")
	w.now = time.Unix(0, 0)
	w.offers("2026.11.1")
	w.repo.Timestamp.Signed.Expires = start.Add(-time.Hour)
	w.repo.PublishTimestamp()
	w.refuses("expired")
}

// A device that was never refreshed and believes in 1970 takes what is signed: nothing can tell it better.
func TestFirstClock(t *testing.T) {
	w := newWorld(t)
	w.now = time.Unix(0, 0)
	w.release("2026.11.1")
	w.offers("2026.11.1")
}

// An attacker who had the online keys has raised all versions. New keys let the publisher go on from low ones.
func TestFastForward(t *testing.T) {
	for name, c := range map[string]struct{ forward, rotate []string }{
		"timestamp":     {[]string{"timestamp"}, []string{"timestamp"}},
		"snapshot":      {[]string{"timestamp", "snapshot"}, []string{"timestamp", "snapshot"}},
		"targets":       {[]string{"timestamp", "snapshot", "targets"}, []string{"timestamp", "snapshot"}},
		"one key stays": {[]string{"timestamp"}, []string{"replace"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			stays := w.repo.NewKey()
			w.repo.AddKey("timestamp", stays)
			w.repo.PublishRoot()
			w.release("2026.11.1")
			ts, sn := w.repo.Timestamp.Signed.Version, w.repo.Snapshot.Signed.Version
			for _, role := range c.forward {
				switch role {
				case "timestamp":
					w.repo.Timestamp.Signed.Version = 1 << 40
				case "snapshot":
					w.repo.Snapshot.Signed.Version = 1 << 40
				case "targets":
					w.repo.Snapshot.Signed.Meta["stable.json"].Version = 1 << 40
				}
			}
			w.repo.Publish()
			if err := w.refresh(); err != nil {
				t.Fatal(err)
			}
			w.repo.Timestamp.Signed.Version, w.repo.Snapshot.Signed.Version = ts, sn
			w.release("2026.11.2")
			w.refuses()
			for _, role := range c.rotate {
				if role == "replace" {
					w.repo.Rotate("timestamp")
					w.repo.AddKey("timestamp", stays)
				} else {
					w.repo.Rotate(role)
				}
			}
			w.repo.PublishRoot()
			w.repo.Timestamp.Signed.Version, w.repo.Snapshot.Signed.Version = ts, sn
			w.release("2026.11.3")
			w.offers("2026.11.3")
		})
	}
}

// That a key was added is no reason to forget what was seen.
func TestAddedKeyKeepsMemory(t *testing.T) {
	w := oldAndNew(t)
	w.repo.AddKey("timestamp", w.repo.NewKey())
	w.repo.PublishRoot()
	w.repo.Files["metadata/timestamp.json"] = w.old["metadata/timestamp.json"]
	w.remove("timestamp.json")
	w.refuses("older than what was seen")
}

// What does not come from the publisher's keys is refused, wherever it is put. (Arbitrary software, wrong key)
func TestWrongKey(t *testing.T) {
	for role, publish := range map[string]func(r *trusttest.Repo){
		"timestamp": (*trusttest.Repo).PublishTimestamp,
		"snapshot":  func(r *trusttest.Repo) { r.Publish() },
		"targets":   func(r *trusttest.Repo) { r.Publish("targets") },
		"root":      (*trusttest.Repo).PublishRoot,
	} {
		t.Run(role, func(t *testing.T) {
			w := newWorld(t)
			w.release("2026.11.1")
			w.offers("2026.11.1")
			right := w.repo.Keys[role]
			w.repo.Keys[role] = []ed25519.PrivateKey{w.repo.NewKey(), w.repo.NewKey(), w.repo.NewKey()}
			publish(w.repo)
			w.refuses(role, "signatures")
			w.repo.Keys[role] = right
			if role == "root" {
				w.repo.Root.Signed.Version--
			}
			publish(w.repo)
			w.release("2026.11.2")
			w.offers("2026.11.2")
		})
	}
}

func TestWrongKeyOfChannel(t *testing.T) {
	w := newWorld(t)
	w.repo.Keys["stable"] = []ed25519.PrivateKey{w.repo.NewKey()}
	w.release("2026.11.1")
	c := w.client()
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if o, err := c.Offer(context.Background(), "stable", "garden", image.AMD64); err == nil {
		t.Errorf("offers %v", o)
	}
}

// Root is 2-of-3. One key of the old or of the new root is not enough; one key twice is one key.
func TestRootThreshold(t *testing.T) {
	for name, c := range map[string]struct {
		old, new int // signers
		ok       bool
	}{
		"both":    {2, 2, true},
		"one old": {1, 3, false},
		"one new": {3, 1, false},
		"none":    {0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.release("2026.11.1")
			w.offers("2026.11.1")
			w.repo.Rotate("root")
			keys := w.repo.Keys["root"]
			w.repo.Keys["root"] = append(keys[:c.new:c.new], keys[3:3+c.old]...)
			w.repo.PublishRoot()
			if c.ok {
				w.offers("2026.11.1")
			} else {
				w.refuses("root", "signatures")
			}
		})
	}
	w := newWorld(t)
	w.repo.Keys["root"] = []ed25519.PrivateKey{w.repo.Keys["root"][0], w.repo.Keys["root"][0]}
	w.repo.PublishRoot()
	w.refuses("root")
}

// A thief has one root key and the online keys. The publisher rotates them with the other two; what the thief signs is then
// refused by every device, also by one that was off for several rotations and starts with its first root.
func TestKeyCompromise(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.offers("2026.11.1")
	thief := trusttest.New(t, start) // has the same sequence of keys
	for range 5 {
		for _, role := range []string{"root", "timestamp", "snapshot"} {
			w.repo.Rotate(role)
		}
		w.repo.PublishRoot()
	}
	w.release("2026.11.2")
	w.offers("2026.11.2")
	thief.Timestamp.Signed.Version = 1000
	thief.Publish()
	newest := w.repo.Files["metadata/timestamp.json"]
	w.repo.Files["metadata/timestamp.json"] = thief.Files["metadata/timestamp.json"]
	w.refuses("timestamp", "signatures")
	w.dir = t.TempDir() // a device that has seen nothing
	w.refuses("timestamp", "signatures")
	w.repo.Files["metadata/timestamp.json"] = newest
	w.offers("2026.11.2")
}

// Files of different times do not go together. (Mix and match)
func TestMixAndMatch(t *testing.T) {
	for _, role := range []string{"snapshot", "targets"} {
		w := newWorld(t)
		w.release("2026.11.1")
		newest := func() string {
			version := map[string]int64{"snapshot": w.repo.Snapshot.Signed.Version, "targets": w.repo.Targets["targets"].Signed.Version}
			return fmt.Sprintf("metadata/%d.%s.json", version[role]-1, role)
		}
		first := newest()
		w.repo.PublishTargets("targets")
		w.release("2026.11.2")
		second := newest()
		right := w.repo.Files[second]
		w.repo.Files[second] = w.repo.Files[first]
		w.refuses(role)
		w.repo.Files[second] = right
		w.offers("2026.11.2")
	}
}

// A server that sends without end, or without speed, is left after bounded bytes and time; whichever file it does so with.
func TestEndlessAndSlow(t *testing.T) {
	noise := bytes.Repeat([]byte("x"), 64<<10)
	ways := map[string]func(w http.ResponseWriter){
		"endless": func(w http.ResponseWriter) {
			for {
				if _, err := w.Write(noise); err != nil {
					return
				}
			}
		},
		"slow": func(w http.ResponseWriter) {
			for {
				_, err := w.Write(noise[:1])
				if err == nil {
					err = http.NewResponseController(w).Flush()
				}
				if err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) // the attack itself
			}
		},
	}
	for name, way := range ways {
		for _, file := range []string{"2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json", "2.stable.json", "release.json"} {
			t.Run(name+" "+file, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.release("2026.11.1")
				w.answer = func(out http.ResponseWriter, path string, _ []byte) bool {
					if strings.HasSuffix(path, file) {
						way(out)
						return true
					}
					return false
				}
				c := w.client()
				err := c.Refresh(context.Background())
				if err == nil {
					_, err = c.Offer(context.Background(), "stable", "garden", image.AMD64)
				}
				if err == nil {
					t.Error("accepted")
				}
				w.mu.Lock()
				w.answer = nil
				w.mu.Unlock()
				w.offers("2026.11.1")
			})
		}
	}
}

// Object stores answer 403 for what is not there.
func TestForbiddenRootIsMissing(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.answer = func(out http.ResponseWriter, path string, file []byte) bool {
		if file == nil {
			out.WriteHeader(http.StatusForbidden)
		}
		return file == nil
	}
	w.offers("2026.11.1")
	w.repo.Rotate("timestamp")
	w.repo.PublishRoot()
	w.release("2026.11.2")
	w.offers("2026.11.2")
}

// A server that fails for the next root is no proof that there is none.
func TestFailingRootIsNotMissing(t *testing.T) {
	w := newWorld(t)
	w.answer = func(out http.ResponseWriter, path string, _ []byte) bool {
		bad := strings.HasSuffix(path, "root.json")
		if bad {
			out.WriteHeader(http.StatusInternalServerError)
		}
		return bad
	}
	w.refuses("root", "500")
}

// What is signed with a thief's online keys must not make the client panic either.
func TestSignedNulls(t *testing.T) {
	for name, spoil := range map[string]func(r *trusttest.Repo){
		"timestamp": func(r *trusttest.Repo) { r.Timestamp.Signed.Meta["snapshot.json"] = nil; r.PublishTimestamp() },
		"snapshot":  func(r *trusttest.Repo) { r.Snapshot.Signed.Meta["stable.json"] = nil; r.Publish() },
		"targets":   func(r *trusttest.Repo) { r.Snapshot.Signed.Meta["targets.json"] = nil; r.Publish() },
	} {
		w := newWorld(t)
		w.release("2026.11.1")
		w.offers("2026.11.1")
		spoil(w.repo)
		t.Log(name)
		w.refuses("null")
	}
}

// A mirror that is behind, lies or breaks off is not in the way of a good one, whichever file it does so with.
func TestBadMirror(t *testing.T) {
	for name, bad := range map[string]func(out http.ResponseWriter, path string, file []byte) bool{
		"garbage": func(out http.ResponseWriter, _ string, _ []byte) bool { fmt.Fprint(out, "garbage"); return true },
		"garbage below": func(out http.ResponseWriter, path string, _ []byte) bool {
			below := strings.HasSuffix(path, "stable.json")
			if below {
				fmt.Fprint(out, "garbage")
			}
			return below
		},
		"garbage for release": func(out http.ResponseWriter, path string, _ []byte) bool {
			release := strings.HasSuffix(path, "release.json")
			if release {
				fmt.Fprint(out, "garbage")
			}
			return release
		},
		"empty": func(out http.ResponseWriter, _ string, _ []byte) bool {
			out.WriteHeader(http.StatusNotFound)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.release("2026.11.1")
			behind := newWorld(t)
			behind.repo.Files, behind.answer = w.repo.Files, bad
			w.urls = []string{behind.server.URL, w.server.URL}
			w.offers("2026.11.1")
		})
	}
	t.Run("behind", func(t *testing.T) {
		w := oldAndNew(t)
		behind := newWorld(t)
		behind.repo.Files = w.old
		w.urls = []string{behind.server.URL, w.server.URL}
		w.offers("2026.11.3")
	})
}
