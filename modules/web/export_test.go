package web_test

import (
	"encoding/xml"
	"testing"
)

// TestExport wants the site in the form that WordPress's importer reads.
func TestExport(t *testing.T) {
	s := newSite(t, nil)
	s.php(`wp_update_post(['ID' => 1, 'post_title' => 'Seeds and bulbs', 'post_content' => 'Ünïcode 🌷']);`)
	s.mustRun("export")
	var rss struct {
		Items []struct {
			Title   string `xml:"title"`
			Content string `xml:"http://purl.org/rss/1.0/modules/content/ encoded"`
		} `xml:"channel>item"`
	}
	if err := xml.Unmarshal(s.Read("/var/lib/export/wordpress.xml"), &rss); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, i := range rss.Items {
		found = found || i.Title == "Seeds and bulbs" && i.Content == "Ünïcode 🌷"
	}
	if !found {
		t.Errorf("the post is not among %d", len(rss.Items))
	}
}
